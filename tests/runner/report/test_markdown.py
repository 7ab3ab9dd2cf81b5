"""The report as one Markdown file: its words, its tables, and text that must not become Markdown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.markdown import fenced, literal, write
from runner.report.notes import Notes
from runner.report.published import Cell, Claim, Exhibit

MakeRun = Callable[..., Path]
CELLS = [Cell("M=4", name, {"workers": 4, "algorithm": name}, 9.0) for name in ("asgd", "ssgd")]
CLAIM = Claim("final_test_error[ssgd, M=4] < final_test_error[asgd, M=4]", "section 1")
TABLE = Exhibit("Someone", "paper", "table1", "Errors | all", "table 1", "table", "final_test_error", {}, {},
                ["M=4"], ["asgd", "ssgd"], CELLS, [CLAIM])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("*a* _b_ `c` [d]", r"\*a\* \_b\_ \`c\` \[d\]"),
        ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
        ("two\n lines ", "two lines"),
        (0.5, "0.5"),
    ],
)
def test_text_is_literal(text: object, written: str) -> None:
    assert literal(text) == written


def test_a_line_cannot_end_its_fence() -> None:
    assert fenced("dcrun run.name='```'\n b") == "dcrun run.name='` ` `' b"


def test_one_file_has_tables_and_remarks(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run(f"asgd/{seed}", [60.0, 31.0 + seed], seed=seed)
        make_run(f"ssgd/{seed}", [60.0, 21.0 + seed], algorithm="ssgd", seed=seed)
    make_run("other", [50.0], model="mlp", workers=2)
    (tmp_path / "runs" / "torn" / ".hydra").mkdir(parents=True)
    notes = tmp_path / "notes.md"
    notes.write_text("At the top.\n\n## paper/table1\n\nOf the table.\n\n## Later\n\nThe end.\n")
    runs = collect([tmp_path / "runs"])
    path = tmp_path / "all.md"
    write(path, tmp_path / "figures", runs, [(TABLE, measure_exhibit(TABLE, runs))], Notes(notes))
    text = path.read_text()
    assert "| M=4 | 32.00 ± 1.00 (paper 9.00, +23.00) | 22.00 ± 1.00 (paper 9.00, +13.00) |" in text
    assert r"## Errors \| all" in text
    assert "| **holds** |" in text
    assert "dcrun -m algorithm=asgd seed=0,1,2" in text
    places = [text.index(part) for part in ("At the top.", "Of the table.", "asgd M=2", "- torn: ", "The end.")]
    assert places == sorted(places)
    assert "\n\n\n" not in text


def test_same_runs_are_described_once(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("asgd", "ssgd"):
        make_run(name, [60.0, 31.0], algorithm=name)
    runs = collect([tmp_path / "runs"])
    again = Exhibit("Someone", "paper", "table2", "Again", "table 2", "table", "final_test_error", {}, {},
                    ["M=4"], ["asgd", "ssgd"], CELLS, [])  # fmt: skip
    evidence = [(exhibit, measure_exhibit(exhibit, runs)) for exhibit in (TABLE, again)]
    write(tmp_path / "all.md", tmp_path / "figures", runs, evidence, Notes(None))
    text = (tmp_path / "all.md").read_text()
    first, second = text[: text.index("## Again")], text[text.index("## Again") :]
    assert "dcrun algorithm=asgd" in first
    assert "dcrun algorithm=asgd" not in second
    assert r"The runs are those of Errors \| all (table 1) above." in second
