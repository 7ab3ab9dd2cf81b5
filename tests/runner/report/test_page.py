"""What the page says, without a browser: its data, its tables, what a script must not end."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.report import page_data
from runner.report.collect import collect
from runner.report.evidence import Block, measure_exhibit
from runner.report.notes import Notes
from runner.report.page import render, searched, table, write
from runner.report.published import Cell, Exhibit
from runner.report.run import Run
from tests.page_contents import data_of

MakeRun = Callable[..., Path]
CELLS = [Cell("M=4", name, {"workers": 4, "algorithm": name}, 31.5) for name in ("asgd", "ssgd")]
TABLE = Exhibit("Someone", "paper", "table1", "Errors", "table 1", "table", "final_test_error", {}, {},
                ["M=4", "M=8"], ["asgd", "ssgd", "sgd"], CELLS, [])  # fmt: skip


def measured(make_run: MakeRun, tmp_path: Path) -> tuple[list[Run], Block]:
    for seed in (0, 1):
        make_run(f"asgd/{seed}", [60.0, 30.0 + 2 * seed], seed=seed)
    make_run("ssgd/0", [60.0, 40.0], algorithm="ssgd")
    runs = collect([tmp_path / "runs"])
    (block,) = measure_exhibit(TABLE, runs)
    return runs, block


def test_table_has_mean_spread_and_difference(make_run: MakeRun, tmp_path: Path) -> None:
    """30 and 32 have the mean 31 and the deviation √2; 31.5 is published."""
    found = table(measured(make_run, tmp_path)[1])
    assert found["columns"] == ["asgd", "ssgd"], "no cell has a third"
    (row,) = found["rows"]
    assert row["name"] == "M=4"
    texts = [{key: cell[key] for key in ("measured", "published", "difference")} for cell in row["cells"]]
    assert texts[0] == {"measured": f"31.00 ± {math.sqrt(2):.2f}", "published": "31.50", "difference": "−0.50"}
    assert texts[1] == {"measured": "40.00", "published": "31.50", "difference": "+8.50"}


def test_cells_without_a_number_say_why(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("asgd", [60.0, 30.0])
    make_run("ssgd", [60.0, None], algorithm="ssgd", status="diverged")
    (block,) = measure_exhibit(TABLE, collect([tmp_path / "runs"]))
    assert [cell["measured"] for cell in table(block)["rows"][0]["cells"]] == ["30.00", "diverged"]


def test_data_are_those_of_the_runs(make_run: MakeRun, tmp_path: Path) -> None:
    runs, block = measured(make_run, tmp_path)
    page = render(runs, [(TABLE, [block])], "Title")
    data = data_of(page)
    assert {run["fields"]["final_test_error"] for run in data["runs"]} == {30.0, 32.0, 40.0}
    assert data["runs"][0]["curve"]["test_error"] == [60.0, 30.0]
    assert [run["group"] for run in data["runs"]] == [0, 0, 1], "two seeds of one setting are one group"
    # A quarter above the lowest error, 30.
    assert data["target"] == 38
    assert "test_error" in data["metrics"]
    assert data["axes"] == ["epoch", "virtual_seconds", "updates", "samples"], "seconds are named by their clock"


def test_validation_has_columns_if_a_run_has_it(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0])
    before = data_of(render(collect([tmp_path / "runs"]), [], "x"))
    assert not any("validation" in column for column in before["columns"])
    make_run("b", [50.0], seed=1, config={"dataset.validation": 0.1}, summary={"best_validation_error": 45.0})
    after = data_of(render(collect([tmp_path / "runs"]), [], "x"))
    place = after["columns"].index("best_test_error")
    beside = ["final_validation_error", "best_validation_error", "test_error_at_best_validation"]
    assert after["columns"][place + 1 : place + 4] == beside
    assert [column for column in after["columns"] if column not in (*beside, "dataset.validation")] == before["columns"]
    assert [run["fields"]["best_validation_error"] for run in after["runs"]] == [None, 45.0]


def test_nothing_of_a_run_ends_a_script(make_run: MakeRun, tmp_path: Path) -> None:
    word = "</script><b>bold"
    make_run("a", [50.0], config={"schedule.note": word})
    runs = collect([tmp_path / "runs"])
    page = render(runs, [], word)
    assert word not in page
    assert ["schedule.note", word] in data_of(page)["runs"][0]["facts"]
    assert "&lt;/script&gt;&lt;b&gt;bold" in page, "the title, escaped"


def test_searches_leave_out_an_exhibits_runs(make_run: MakeRun, tmp_path: Path) -> None:
    for place, lr in enumerate((0.1, 0.2, 0.4, 0.8)):
        make_run(f"a{place}", [50.0 + place], config={"schedule.lr": lr})
    runs = collect([tmp_path / "runs"])
    (found,) = searched(runs, [])
    assert "0.1" in found["lines"][0]
    cells = [Cell("M=4", "asgd", {"workers": 4, "schedule.lr": 0.1}, None)]
    exhibit = replace(TABLE, cells=cells, metric="best_test_error")
    (block,) = measure_exhibit(exhibit, runs)
    assert [run.name for run in block.runs] == ["a0"]
    # Of the three that are left, 0.2 is the best.
    (left,) = searched(runs, [(exhibit, [block])])
    assert "0.2" in left["lines"][0]
    assert not any("0.1" in line for line in left["lines"])


def test_quick_scale_compares_no_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("asgd", [60.0, 30.0], config={"scale": "quick"})
    make_run("ssgd", [60.0, 40.0], algorithm="ssgd", config={"scale": "quick"})
    (block,) = measure_exhibit(TABLE, collect([tmp_path / "runs"]))
    cells = table(block)["rows"][0]["cells"]
    assert [(cell["published"], cell["difference"]) for cell in cells] == [("31.50", ""), ("31.50", "")]


def test_library_is_beside_if_asked(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0])
    runs = collect([tmp_path / "runs"])
    write(tmp_path / "one.html", runs, [], "x")
    write(tmp_path / "two.html", runs, [], "x", beside=True)
    one, two = ((tmp_path / name).read_text() for name in ("one.html", "two.html"))
    assert len(two) < 100_000 < 3_000_000 < len(one)
    assert '<script src="plotly.min.js">' in two
    assert (tmp_path / "plotly.min.js").read_text() in one


def test_remarks_stand_by_their_exhibits(make_run: MakeRun, tmp_path: Path) -> None:
    runs, block = measured(make_run, tmp_path)
    notes = tmp_path / "notes.md"
    notes.write_text("On **top**.\n\n## paper/table1\nOf [it](a.md), <b>x</b>\n\n## gone\nLeft over\n")
    write(tmp_path / "page.html", runs, [(TABLE, [block])], "x", notes=Notes(notes))
    page = (tmp_path / "page.html").read_text()
    assert "<p>On <strong>top</strong>.</p>" in page
    assert '<p>Of <a href="a.md">it</a>, &lt;b&gt;x&lt;/b&gt;</p>' in page[page.index('id="paper-table1"') :]
    assert "<p>Left over</p>" in page[page.index('id="remarks"') :]


def test_what_a_sweep_varied_stands_beside_the_names(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0], config={"algorithm.lambda0": 0.5})
    make_run(
        "b", [50.0], config={"algorithm.lambda0": 2.0, "cluster.kind": "processes"}, summary={"cluster": "processes"}
    )
    columns = data_of(render(collect([tmp_path / "runs"]), [], "x"))["columns"]
    assert columns.index("algorithm.lambda0") < columns.index("final_test_error")
    assert "cluster.kind" not in columns, "the cluster's name says it"


def test_runs_are_in_the_order_of_their_jobs(make_run: MakeRun, tmp_path: Path) -> None:
    for number in (10, 9, 1):
        make_run(f"sweep/{number}", [30.0], seed=number)
    data = data_of(render(collect([tmp_path / "runs"]), [], "t"))
    assert [run["fields"]["name"] for run in data["runs"]] == ["sweep/1", "sweep/9", "sweep/10"]


def test_seeds_of_two_versions_are_of_one_group(make_run: MakeRun, tmp_path: Path) -> None:
    """The mean over seeds on the page is that of the ranking."""
    make_run("old", [30.0])
    make_run("new", [31.0], seed=1, config={"algorithm.new_key": 1})
    make_run("other", [32.0], seed=1, config={"schedule.lr": 9.0})
    groups = {
        run["fields"]["name"]: run["group"] for run in data_of(render(collect([tmp_path / "runs"]), [], "t"))["runs"]
    }
    assert groups["old"] == groups["new"] != groups["other"]


def test_curves_begin_with_the_first_setting(make_run: MakeRun, tmp_path: Path) -> None:
    for method in ("asgd", "ssgd"):
        make_run(f"a/{method}", [30.0], algorithm=method, model="mlp")
        for seed in (0, 1):
            make_run(f"b/{method}{seed}", [30.0 + seed], algorithm=method, seed=seed)
    data = data_of(render(collect([tmp_path / "runs"]), [], "t"))
    assert {data["runs"][place]["fields"]["model"] for place in data["first"]} == {"resnet20"}
    assert (len(data["first"]), data["metric"], data["log_y"]) == (4, "test_error", False)


def test_seconds_have_a_column_for_each_clock(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0])
    make_run("b", [50.0], seed=1, summary={"clock": "measured"})
    data = data_of(render(collect([tmp_path / "runs"]), [], "x"))
    assert {"virtual_seconds", "measured_seconds"} < set(data["columns"])
    seconds = [(run["fields"]["virtual_seconds"], run["fields"]["measured_seconds"]) for run in data["runs"]]
    assert seconds == [(10.0, None), (None, 10.0)]
    assert [sorted(key for key in run["curve"] if "seconds" in key) for run in data["runs"]] == [
        ["virtual_seconds"],
        ["measured_seconds"],
    ]


def test_runs_part_where_a_last_bit_differs(make_run: MakeRun, tmp_path: Path) -> None:
    """The digits that the page shows are the same."""
    for name, third in (("a", 40.0), ("b", 40.0 + 1e-9)):
        make_run(name, [60.0, 50.0, third, 30.0])
    first, second = (run["prints"] for run in data_of(render(collect([tmp_path / "runs"]), [], "x"))["runs"])
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, True, False, False]


def test_many_runs_have_fewer_points_each(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_data, "_ALL_POINTS", 240)
    for seed in (0, 1):
        make_run(f"a{seed}", [60.0 - 0.1 * k for k in range(500)], seed=seed)
    for run in data_of(render(collect([tmp_path / "runs"]), [], "x"))["runs"]:
        # 240 of both together; the ends are there besides.
        assert 120 <= len(run["curve"]["test_error"]) == len(run["prints"]) == len(run["rows"]) <= 122
        assert (run["rows"][0], run["rows"][-1]) == (0, 499)
