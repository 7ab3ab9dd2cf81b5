from pathlib import Path

import pytest

from runner.report.notes import Notes


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    path = tmp_path / "docs" / "notes.md"
    path.parent.mkdir()
    path.write_text(
        "# Notes\n\nTop, [far](../bench/README.md), [web](https://x.org/a), [here](#b).\n\n"
        "## paper/table1\n\n![figure](figures/a.png)\n\n### Inside\n\nStays.\n\n## Later\n\nThe end.\n"
    )
    return Notes(path)


def test_remarks_go_by_their_headings(notes: Notes, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    assert notes.take("paper/table1", page) == "![figure](figures/a.png)\n\n### Inside\n\nStays."
    assert notes.take("paper/table2", page) == ""
    assert notes.take_rest(page) == {"Later": "The end."}
    assert notes.take_rest(page) == {}


def test_links_lead_from_the_page(notes: Notes, tmp_path: Path) -> None:
    top = notes.take_top(tmp_path / "RESULTS.md")
    assert top == "Top, [far](bench/README.md), [web](https://x.org/a), [here](#b)."
    remark = notes.take("paper/table1", tmp_path / "docs" / "results" / "paper.md")
    assert remark.startswith("![figure](../figures/a.png)")


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    notes = Notes(None)
    assert (notes.take_top(tmp_path), notes.take("a", tmp_path), notes.take_rest(tmp_path)) == ("", "", {})
