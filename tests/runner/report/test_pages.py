import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.config.errors import InputError
from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.notes import Notes
from runner.report.pages import write
from runner.report.published import Cell, Claim, Exhibit, load

ROOT = Path(__file__).resolve().parents[3]
MakeRun = Callable[..., Path]
CELLS = [Cell("M=4", name, {"workers": 4, "algorithm": name}, 9.0) for name in ("asgd", "ssgd")]
CLAIMS = [
    Claim("final_test_error[ssgd, M=4] < final_test_error[asgd, M=4]", "section 1"),
    Claim("final_test_error[asgd, M=4] < 5", "section 2"),
    Claim("seconds_to(1)[asgd, M=4] < 5", "section 3"),
]
TABLE = Exhibit("Someone, Some Thesis, chapter 1", "thesis", "table1", "Errors", "table 1", "table", "final_test_error",
                {}, {}, ["M=4"], ["asgd", "ssgd"], CELLS, CLAIMS)  # fmt: skip
# Another paper shows the same runs; a third exhibit has none.
COPY = replace(TABLE, paper="Someone else", folder="paper", title="Errors again", claims=CLAIMS[:1])
UNMEASURED = replace(TABLE, paper="Someone, Some Thesis, chapter 2", name="table2", match={"model": "none"})


def pages(make_run: MakeRun, top: Path, notes: Path | None = None) -> list[Path]:
    for seed in (0, 1, 2):
        make_run(f"asgd/{seed}", [60.0, 31.0 + seed], seed=seed)
        make_run(f"ssgd/{seed}", [60.0, 21.0 + seed], algorithm="ssgd", seed=seed)
    runs = collect([top / "runs"])
    evidence = [(exhibit, measure_exhibit(exhibit, runs)) for exhibit in (TABLE, UNMEASURED, COPY)]
    return write(top / "RESULTS.md", top / "pages", top / "figures", runs, evidence, Notes(notes))


def test_the_index_has_a_line_a_paper(make_run: MakeRun, tmp_path: Path) -> None:
    assert pages(make_run, tmp_path) == [tmp_path / "pages" / "thesis.md", tmp_path / "pages" / "paper.md"]
    index = (tmp_path / "RESULTS.md").read_text()
    assert "| paper | tables and figures measured | holds | fails | undecided | not measured |" in index
    # Two claims judged, one that no run can tell, and the three of the table that was not measured.
    assert "| [Someone, Some Thesis](pages/thesis.md) | 1 of 2 | 1 | 1 | 0 | 4 |" in index
    assert "| [Someone else](pages/paper.md) | 1 of 1 | 1 | 0 | 0 | 0 |" in index
    assert "a page of their own" not in index


def test_a_papers_page_has_its_tables_alone(make_run: MakeRun, tmp_path: Path) -> None:
    pages(make_run, tmp_path)
    thesis, paper = ((tmp_path / "pages" / f"{name}.md").read_text() for name in ("thesis", "paper"))
    assert thesis.startswith("# Someone, Some Thesis\n\nBack to the [index](../RESULTS.md)")
    assert "| M=4 | 32.00 ± 1.00 (paper 9.00, +23.00) | 22.00 ± 1.00 (paper 9.00, +13.00) |" in thesis
    assert re.findall(r"^## (.*)$", thesis, re.M) == ["Claims at a glance", "Errors"]
    assert re.findall(r"^## (.*)$", paper, re.M) == ["Claims at a glance", "Errors again"]
    # The commands are told once; the other page links to them.
    assert "dcrun -m algorithm=asgd seed=0,1,2" in thesis
    assert "The runs are those of [Errors (table 1)](thesis.md)." in paper


def test_runs_of_no_paper_have_a_page(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("other", [50.0], model="none", workers=2)
    notes = tmp_path / "notes.md"
    notes.write_text("At the top.\n\n## thesis/table1\n\nOf the table.\n\n## Later\n\nThe end.\n")
    written = pages(make_run, tmp_path, notes)
    other = written[-1].read_text()
    assert written[-1] == tmp_path / "pages" / "other_runs.md"
    assert "asgd M=2" in other
    assert "The end." in other
    assert "Of the table." not in other
    assert "Of the table." in written[0].read_text()
    index = (tmp_path / "RESULTS.md").read_text()
    assert "At the top." in index
    assert "[a page of their own](pages/other_runs.md)" in index


def scaled(make_run: MakeRun, top: Path, scale: str, notes: Path | None = None) -> list[Path]:
    for seed in () if (top / "runs").exists() else (0, 1, 2):
        make_run(f"asgd/{seed}", [60.0, 21.0 + seed], seed=seed, config={"scale": scale})
        make_run(f"ssgd/{seed}", [60.0, 31.0 + seed], algorithm="ssgd", seed=seed, config={"scale": scale})
    runs = collect([top / "runs"])
    central = replace(TABLE, claims=[replace(CLAIMS[0], central="SSGD is better"), *CLAIMS[1:]])
    evidence = [(exhibit, measure_exhibit(exhibit, runs)) for exhibit in (central,)]
    return write(top / "RESULTS.md", top / "pages", top / "figures", runs, evidence, Notes(notes))


def test_quick_scale_judges_no_claim(make_run: MakeRun, tmp_path: Path) -> None:
    (page,) = scaled(make_run, tmp_path, "quick")
    text = page.read_text()
    assert "22.00 ± 1.00" in text
    assert "judges no claim" in text
    assert not re.search(r"\*\*(holds|fails|undecided)\*\*", text)
    index = (tmp_path / "RESULTS.md").read_text()
    assert "| [Someone, Some Thesis, chapter 1](pages/thesis.md) | 1 of 1 | 0 | 0 | 0 | 3 |" in index
    assert "| thesis | SSGD is better | not measured | 1 claim: `dcrun experiment=thesis/table1` | | |" in index


def test_the_index_has_the_central_claims(make_run: MakeRun, tmp_path: Path) -> None:
    (page,) = scaled(make_run, tmp_path, "short")
    index = (tmp_path / "RESULTS.md").read_text()
    assert "## Claims at a glance" in index
    line = next(line for line in index.splitlines() if "SSGD is better" in line)
    assert "| **fails** | Short scale: 2 effective passes, seeds 0, 1, 2 |" in line
    assert line.startswith("| [thesis](pages/thesis.md) | SSGD is better |")
    assert "difference +10.00, 95 % interval +10.00 to +10.00, 3 seeds | no: ±0 against the paper's" in line
    assert "**fails**: why is not found out yet |" in page.read_text()


def test_what_was_found_out_has_a_page(make_run: MakeRun, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    heading = f"## thesis/table1: {CLAIMS[0].text}\n\n"
    notes.write_text(f"{heading}Rates from .1 to 1: nothing helps ([data](data.csv)).\n")
    page, failure = scaled(make_run, tmp_path, "short", notes)
    assert failure == tmp_path / "pages" / "thesis-table1-claim1.md"
    assert "**fails**: [what was found out](thesis-table1-claim1.md) |" in page.read_text()
    text = failure.read_text()
    assert text.startswith("# Errors: a claim that did not come out\n\n`final_test_error[ssgd, M=4] <")
    assert "Rates from .1 to 1: nothing helps ([data](../data.csv))." in text
    assert "[the paper's page](thesis.md)" in text
    notes.write_text(heading + "line\n" * 21)
    with pytest.raises(InputError, match="has 21 lines; allowed: at most 20"):
        scaled(make_run, tmp_path, "short", notes)


def test_the_projects_own_archives_are_whole() -> None:
    runs = collect([ROOT / "docs" / "runs"])
    assert len(runs) >= 256
    assert {(run.status, *run.problems) for run in runs} <= {("completed",), ("diverged",)}
    assert not list((ROOT / "docs" / "runs").rglob("summary.json"))


@pytest.mark.slow
def test_committed_results_are_up_to_date(tmp_path: Path) -> None:
    # The same places below another folder, so that the links are the same.
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "notes.md", tmp_path / "docs" / "notes.md")
    runs = collect([ROOT / "docs" / "runs"])
    evidence = [(exhibit, measure_exhibit(exhibit, runs)) for exhibit in load()]
    index, docs = tmp_path / "RESULTS.md", tmp_path / "docs"
    written = write(index, docs / "results", docs / "figures", runs, evidence, Notes(docs / "notes.md"))
    for page in (index, *written):
        assert page.read_text() == (ROOT / page.relative_to(tmp_path)).read_text(), "make results writes it anew"
    assert {page.name for page in written} == {page.name for page in (ROOT / "docs" / "results").iterdir()}
