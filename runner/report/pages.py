"""The report as an index of half a page and a Markdown page for each paper."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

from runner.report import claims, provenance
from runner.report.evidence import Block
from runner.report.failures import Failures
from runner.report.glance import Central, central_claims
from runner.report.markdown import Evidence, exhibits, others, render
from runner.report.notes import Notes, link
from runner.report.published import Exhibit
from runner.report.run import Run

_OTHER = "other_runs"


def write(
    index: Path, folder: Path, figures_folder: Path, runs: Sequence[Run], evidence: Evidence, notes: Notes
) -> list[Path]:
    """Write the index, a page for each paper of which something was measured, and a page of all other runs.

    Args:
        index: the file that has a line for each paper, and the remarks at the top.
        folder: where the pages go: `<paper>.md` and `other_runs.md`.
        figures_folder: where the figures go; referred to relative to each page.
        runs: all runs.
        evidence: the exhibits and what was measured of them.
        notes: remarks; those that belong to no exhibit go to the page of the other runs.

    Returns:
        the pages.

    Raises:
        OSError: if a file cannot be written.
    """
    top = notes.take_top(index)
    # A dictionary keeps the order of the files, and each paper once.
    papers = dict.fromkeys(exhibit.folder for exhibit, blocks in evidence if blocks)
    pages = {paper: folder / f"{paper}.md" for paper in papers}
    # Before the index and the rest: it takes the remarks that belong to exhibits, and
    # what is left goes to `other_runs`.
    failures = Failures(folder, notes)
    shown = exhibits(evidence, notes, lambda exhibit: folder / f"{exhibit.folder}.md", figures_folder, failures.told)
    lines = []
    for paper, page in pages.items():
        lines.append(_line([found for found in evidence if found[0].folder == paper], link(page, index)))
        mine = [exhibit for exhibit in shown if exhibit["folder"] == paper]
        render("paper.md.j2", page, title=lines[-1]["title"], index=link(index, page), exhibits=mine)
    other_page = folder / f"{_OTHER}.md"
    rest = others(runs, evidence, notes, other_page, figures_folder)
    # An empty page would be one more link that leads nowhere.
    if has_rest := bool(rest["others"] or rest["timed"] or rest["remarks"] or rest["broken"]):
        render("other_runs.md.j2", other_page, index=link(index, other_page), **rest)
    other = link(other_page, index) if has_rest else ""
    glance = [_at_a_glance(central, folder, index) for central in central_claims(evidence)]
    render("index.md.j2", index, top=top, papers=lines, other=other, runs=len(runs), glance=glance)
    return [*pages.values(), *failures.pages, *([other_page] if has_rest else [])]


def _at_a_glance(central: Central, folder: Path, index: Path) -> dict[str, Any]:
    """Return what the index says of a central claim."""
    judged = [
        {**asdict(one.verdict), "text": one.verdict.claim.text, "heading": provenance.heading(one.block)}
        for one in central.judged
    ]
    page = link(folder / f"{central.folder}.md", index)
    return {"folder": central.folder, "page": page, "words": central.words, "judged": judged,
            "unmeasured": central.unmeasured, "commands": central.commands}  # fmt: skip


def _line(mine: Evidence, page: str) -> dict[str, Any]:
    """Return a paper's line in the index."""
    measured = [exhibit for exhibit, blocks in mine if blocks]
    return {
        "title": _title([exhibit.paper for exhibit, _ in mine]),
        "link": page,
        "measured": len(measured),
        "exhibits": len(mine),
        "counts": _counts(mine),
    }


def _title(names: Sequence[str]) -> str:
    """Return a paper's name; if its chapters have files of their own, the parts that all their names begin with."""
    parts = zip(*(name.split(", ") for name in names), strict=False)
    return ", ".join(found[0] for found in takewhile(lambda found: len(set(found)) == 1, parts))


def _counts(mine: Sequence[tuple[Exhibit, list[Block]]]) -> list[int]:
    """Count verdicts, those of quick scale left out; a claim that was judged under two settings has two."""
    verdicts = []
    for exhibit, blocks in mine:
        # Blocks hold their verdicts in the order of the claims, so the number finds one claim's in each.
        for number, _ in enumerate(exhibit.claims):
            words = [block.verdicts[number].word for block in blocks if block.judged]
            told = [word for word in words if word != claims.UNMEASURED]
            verdicts += told or [claims.UNMEASURED]
    return [verdicts.count(word) for word in claims.WORDS]
