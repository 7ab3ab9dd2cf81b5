from pathlib import Path

import pytest
import yaml

from runner.report.bounds import is_positive
from runner.report.claims import judge
from runner.report.published import load

EXHIBIT = {
    "title": "Errors",
    "source": "table 1",
    "rows": {"M=1": {"workers": 1}, "M=4": {"workers": 4}},
    "columns": {"SGD": {"algorithm": "sgd", "workers": 1}, "ASGD": {"algorithm": "asgd"}},
    "values": {"M=4": {"SGD": 8.65, "ASGD": 9.27}},
}


def write(folder: Path, exhibits: object) -> Path:
    (folder / "a_paper").mkdir()
    document = {"paper": "A paper", "exhibits": exhibits}
    (folder / "a_paper" / "published.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def test_cells_exist_where_published(tmp_path: Path) -> None:
    (exhibit,) = load(write(tmp_path, {"table1": EXHIBIT}))
    assert exhibit.id == "a_paper/table1"
    assert [(cell.id, cell.published) for cell in exhibit.cells] == [("SGD, M=4", 8.65), ("ASGD, M=4", 9.27)]
    assert [cell.match["workers"] for cell in exhibit.cells] == [1, 4]


def test_paper_with_a_file_per_chapter(tmp_path: Path) -> None:
    folder = write(tmp_path, {"table1": EXHIBIT}) / "a_paper"
    second = {"paper": "A paper, chapter 2", "exhibits": {"table2": EXHIBIT}}
    (folder / "published_chapter2.yaml").write_text(yaml.safe_dump(second, sort_keys=False))
    assert [(exhibit.paper, exhibit.id) for exhibit in load(tmp_path)] == [
        ("A paper", "a_paper/table1"),
        ("A paper, chapter 2", "a_paper/table2"),
    ]


def test_figure_inherits_unsaid_settings(tmp_path: Path) -> None:
    figure = {"same_as": "table1", "kind": "curves", "source": "figure 2", "title": "Curves"}
    table, curves = load(write(tmp_path, {"table1": EXHIBIT, "figure2": figure}))
    assert (curves.kind, curves.source, curves.cells) == ("curves", "figure 2", table.cells)


def test_claim_of_rows_is_one_of_each(tmp_path: Path) -> None:
    values = {"M=1": {"SGD": 8.65}, "M=4": {"SGD": 8.65}}
    of_all = {"claim": "seconds[SGD, {row}] < 9", "rows": "all", "source": "section 6", "words": "fast"}
    of_one = {"claim": "seconds[SGD, {row}] > 1", "rows": ["M=4"], "source": "section 6"}
    more = {"values": values, "claims": [of_all, of_one], "note": "By the virtual clock."}
    (exhibit,) = load(write(tmp_path, {"table1": EXHIBIT | more}))
    assert [claim.text for claim in exhibit.claims] == [
        "seconds[SGD, M=1] < 9",
        "seconds[SGD, M=4] < 9",
        "seconds[SGD, M=4] > 1",
    ]
    assert {(claim.source, claim.words) for claim in exhibit.claims} == {("section 6", "fast"), ("section 6", "")}


def test_figure_inherits_from_one_that_inherits(tmp_path: Path) -> None:
    figure = {"same_as": "table1", "kind": "curves", "source": "figure 2"}
    exhibits = {"table1": EXHIBIT, "figure2": figure, "figure3": {"same_as": "figure2", "x": "seconds"}}
    _, _, third = load(write(tmp_path, exhibits))
    assert (third.kind, third.source, third.x, third.title) == ("curves", "figure 2", "seconds", "Errors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"same_as": "table9"}, "same_as=table9: is not there"),
        ({"length": "long"}, "length=long"),
        ({"kind": "pie"}, "kind=pie: is not a kind; allowed: table, grid, curves"),
        ({"values": {"M=9": {"SGD": 1}}}, "SGD, M=9 is not a cell"),
        ({"rows": None, "title": None}, "lacks"),
        ({"claims": [{"claim": "seconds[SGD, {row}] < 9"}]}, r"rows=\[\]: do not fit"),
        ({"claims": [{"claim": "seconds[SGD, M=4] < 9", "rows": "all"}]}, "rows=all: do not fit"),
        ({"claims": [{"claim": "seconds[SGD, {row}] < 9", "rows": ["M=9"]}]}, "allowed: .* a list of M=1, M=4"),
        ({"claims": [{"claim": "seconds[SGD, M=4] < 9"}]}, "is about seconds; allowed: .* that names the clock"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    wrong = {key: value for key, value in {**EXHIBIT, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, {"table1": wrong}))


def test_published_numbers_go_by_cells(tmp_path: Path) -> None:
    values = {"M=1": {"SGD": 8.65}, "M=4": {"SGD": None, "ASGD": 9.27}}
    (exhibit,) = load(write(tmp_path, {"table1": EXHIBIT | {"values": values}}))
    assert exhibit.numbers.values == {"SGD, M=1": 8.65, "ASGD, M=4": 9.27}
    assert exhibit.numbers.of("final_test_error", "ASGD, M=4") == 9.27
    assert exhibit.numbers.of("final_test_error", "SGD, M=4") is None
    assert exhibit.numbers.of("seconds", "ASGD, M=4") is None


@pytest.mark.parametrize("exhibit", load(), ids=lambda exhibit: exhibit.id)
def test_claims_name_existing_cells(exhibit) -> None:
    names = {cell.id for cell in exhibit.cells}
    assert names
    for claim in exhibit.claims:
        assert judge(claim, {}).word == "not measured"
        if claim.text.startswith("decades_between_bounds("):
            # It is of all cells, whose columns are learning rates.
            assert all(is_positive(cell.column) for cell in exhibit.cells)
            continue
        inside = [part.partition("]")[0] for part in claim.text.split("[")[1:]]
        assert inside, claim.text
        assert set(inside) <= names, claim.text
