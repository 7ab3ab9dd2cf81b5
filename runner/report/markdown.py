"""The report as one Markdown file: tables and figures to be kept beside the code, with hand-written remarks put in."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from runner.report import claims, other_runs, provenance, timing_runs
from runner.report.curves import Figure, figures
from runner.report.evidence import Block
from runner.report.notes import Notes, link
from runner.report.page import searched, table
from runner.report.plots import save
from runner.report.published import Exhibit
from runner.report.run import Run

Evidence = Sequence[tuple[Exhibit, list[Block]]]


def write(path: Path, figures_folder: Path, runs: Sequence[Run], evidence: Evidence, notes: Notes) -> None:
    """Write everything into one Markdown file, and its figures.

    Args:
        path: the file.
        figures_folder: where the figures go; referred to relative to the file.
        runs: all runs; those that no exhibit uses get tables of their own.
        evidence: the exhibits and what was measured of them.
        notes: remarks; those that belong to no exhibit go to the end.

    Raises:
        OSError: if a file cannot be written.
    """
    top = notes.take_top(path)
    shown = exhibits(evidence, notes, lambda _: path, figures_folder)
    render("whole.md.j2", path, top=top, exhibits=shown, **others(runs, evidence, notes, path, figures_folder))


def _nothing_told(exhibit: Exhibit, block: Block, number: int, page: Path) -> str:
    """Say nothing beside a verdict."""
    return ""


def exhibits(
    evidence: Evidence,
    notes: Notes,
    page_of: Callable[[Exhibit], Path],
    figures_folder: Path,
    beside: Callable[[Exhibit, Block, int, Path], str] = _nothing_told,
) -> list[dict[str, Any]]:
    """Draw the figures of what was measured, and return what the templates say about each exhibit.

    Args:
        evidence: the exhibits; those of which nothing was measured are left out.
        notes: remarks on them.
        page_of: the page on which an exhibit is shown.
        figures_folder: where the figures go.
        beside: what is said, in Markdown, beside the verdict on an exhibit's claim of that number.
    """
    shown = []
    earlier: list[tuple[set[int], Exhibit]] = []
    for exhibit, blocks in evidence:
        page = page_of(exhibit)
        told = []
        for block in blocks:
            # By identity: two runs may have equal contents, and a run cannot be hashed.
            mine = {id(run) for run in block.runs}
            # Two exhibits of a paper often rest on the same runs; the reader is told, lest
            # they count as two confirmations.
            same = next((other for runs, other in earlier if mine <= runs), None)
            earlier.append((mine, exhibit))
            drawn = [_drawn(figure, figures_folder, page) for figure in figures(block)]
            # Before the remark on the exhibit is taken: what is said of one of its claims has a heading of its own.
            extra = [beside(exhibit, block, number, page) for number in range(len(block.verdicts))]
            told.append(
                {**_block(block, drawn, extra), "same_as": "" if same is None else _place(same, page_of(same), page)}
            )
        if blocks:
            remark = notes.take(exhibit.id, page)
            shown.append({**asdict(exhibit), "id": exhibit.id, "remark": remark, "blocks": told})
    return shown


def others(runs: Sequence[Run], evidence: Evidence, notes: Notes, page: Path, figures_folder: Path) -> dict[str, Any]:
    """Draw the runs that no exhibit uses, and return what the templates say about them and the remarks left over."""
    used = {id(run) for _, blocks in evidence for block in blocks for run in block.runs}
    rest = [run for run in timing_runs.trained(runs) if id(run) not in used]
    clocks = timing_runs.timed(runs)
    return {
        "timed": {
            "head": timing_runs.HEAD,
            "rows": timing_runs.rows(clocks),
            "figures": [_drawn(figure, figures_folder, page) for figure in timing_runs.figures(clocks)],
        }
        if clocks
        else None,
        "others": other_runs.tables(rest),
        "searches": searched(runs, evidence),
        "curves": [_drawn(figure, figures_folder, page) for figure in other_runs.figures(rest)],
        "remarks": notes.take_rest(page),
        "commands": provenance.commands([run for run in rest if run.status != "broken"]),
        "facts": provenance.facts(rest) if rest else [],
        "broken": [(run.name, "; ".join(run.problems)) for run in runs if run.status == "broken"],
    }


def render(template: str, path: Path, **context: Any) -> None:
    """Write a page from its template.

    Raises:
        OSError: if it cannot be written.
    """
    # No `autoescape`, which is for HTML: the templates pass what others wrote through `md` or `fenced`.
    environment = Environment(loader=PackageLoader("runner.report"), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"md": literal, "fenced": fenced}
    environment.globals |= {"words": claims.WORDS}
    text = environment.get_template(template).render(**context)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Templates leave several empty lines where a condition was false.
    path.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", encoding="utf-8")


def literal(text: object) -> str:
    """Return text as it is, whatever Markdown would make of it."""
    # The ampersand first, else it would escape the escapes of the other two.
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A line break would end a table's row, so blanks of all kinds become one.
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(escaped.split()))


def fenced(text: str) -> str:
    """Return a line for the inside of a fence, which it cannot end."""
    return " ".join(text.split()).replace("```", "` ` `")


def _drawn(figure: Figure, folder: Path, page: Path) -> dict[str, str]:
    title = f"{figure.title}: {figure.panels[0].y} against {figure.x}"
    return {"title": title, "link": link(save(figure, folder), page)}


def _place(exhibit: Exhibit, its_page: Path, page: Path) -> str:
    name = literal(f"{exhibit.title} ({exhibit.source})")
    return f"{name} above" if its_page == page else f"[{name}]({link(its_page, page)})"


def _block(block: Block, drawn: list[dict[str, str]], beside: Sequence[str]) -> dict[str, Any]:
    # Quick scale shows that an experiment runs; its verdicts would be read as verdicts on the paper.
    judged = block.verdicts if block.judged else []
    # A block of one setting rarely measures every claim; those without runs are counted, not listed.
    told = [(v, more) for v, more in zip(judged, beside, strict=False) if v.word != claims.UNMEASURED]
    return {
        "orders": [] if drawn else block.orders(),
        "untold": len(judged) - len(told),
        "counts": claims.counted(judged),
        "heading": provenance.heading(block),
        "scale": block.scale,
        "table": table(block),
        "figures": drawn,
        "verdicts": [{**asdict(v.claim), **asdict(v), "beside": more} for v, more in told],
        "facts": provenance.facts(block.runs),
        "deviations": block.deviations,
        "tuned": block.tuned,
        "commands": provenance.commands(block.runs),
    }
