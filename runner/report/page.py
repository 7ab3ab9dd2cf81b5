"""The page: one HTML file with the result first, then the papers' tables beside it, all runs, and their curves."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from runner.report import (
    claims,
    method_colors,
    metrics,
    page_data,
    page_json,
    provenance,
    ranking,
    results_section,
    search_results,
    timing_runs,
)
from runner.report.curves import Figure, figures
from runner.report.evidence import Block
from runner.report.notes import Notes
from runner.report.published import Exhibit
from runner.report.run import Run
from runner.run_folder.summary_keys import COMPLETED

LIBRARY = "plotly.min.js"
"""The plot library's file if it lies beside the page."""
_WITHOUT = {COMPLETED: "not reached"}  # a run that went to its end and has no such number
_SCRIPTS = ("plots.js", "tables.js")
_OF_RUNS = ("runs.js", "one_run.js", "compare.js", "state.js")


def write(
    path: Path,
    runs: Sequence[Run],
    evidence: Sequence[tuple[Exhibit, list[Block]]],
    title: str,
    *,
    notes: Notes | None = None,
    beside: bool = False,
) -> None:
    """Write the page.

    Args:
        path: the file.
        runs: all runs.
        evidence: the exhibits and what was measured of them.
        title: the page's.
        notes: remarks for exhibits; those that belong to none go to the end.
        beside: whether the plot library is a file of its own beside the page, which several pages can share; else it
            is a part of the page, which then needs nothing else.

    Raises:
        OSError: if a file cannot be written.
    """
    page = render(runs, evidence, title, remarks=Remarks(notes, path), beside=beside)
    path.write_text(page, encoding="utf-8")
    if beside:
        (path.parent / LIBRARY).write_text(get_plotlyjs(), encoding="utf-8")


class Remarks:
    """Remarks in Markdown as HTML; what is HTML in them already is shown as text."""

    def __init__(self, notes: Notes | None = None, page: Path = Path("report.html")) -> None:
        self._notes = notes or Notes(None)
        self._page = page
        self._markdown = MarkdownIt("js-default")

    def of(self, exhibit: str) -> Markup:
        """Return the remark on an exhibit."""
        return self._html(self._notes.take(exhibit, self._page))

    def top(self) -> Markup:
        """Return what stands before the first heading."""
        return self._html(self._notes.take_top(self._page))

    def rest(self) -> dict[str, Markup]:
        """Return what nobody asked for, by its headings."""
        return {title: self._html(text) for title, text in self._notes.take_rest(self._page).items()}

    def _html(self, text: str) -> Markup:
        return Markup(self._markdown.render(text))


def render(
    runs: Sequence[Run],
    evidence: Sequence[tuple[Exhibit, list[Block]]],
    title: str,
    *,
    remarks: Remarks | None = None,
    beside: bool = False,
    served: bool = False,
) -> str:
    """Build the page.

    Args:
        runs: all runs.
        evidence: the exhibits and what was measured of them.
        title: the page's.
        remarks: on exhibits.
        beside: see `write`.
        served: whether `runner.report.watch` serves it, and can be asked whether runs have written more.
    """
    # Names of runs and overrides come from whoever wrote the folder: escaped, they cannot bring scripts into the page.
    environment = Environment(loader=PackageLoader("runner.report"), autoescape=True, trim_blocks=True)
    environment.filters["heading"] = _heading
    remarks = remarks or Remarks()
    runs = sorted(runs, key=lambda run: _natural(run.name))
    trained, clocks = timing_runs.trained(runs), timing_runs.timed(runs)
    drawn: list[Figure] = []
    settings = []
    curved: list[ranking.Ranking] = []
    for number, found in enumerate(ranking.rankings(runs), start=1):
        made = results_section.figure(found, number)
        curved += [found] if made else []
        settings.append({**results_section.section(found, number), "figures": _added(drawn, [made] if made else [])})
    exhibits = [_exhibit(exhibit, blocks, drawn, remarks) for exhibit, blocks in evidence if blocks]
    timed = {"head": timing_runs.HEAD, "rows": timing_runs.rows(clocks)} if clocks else None
    if timed is not None:
        timed["figures"] = _added(drawn, timing_runs.figures(clocks))
    part = environment.get_template
    told = page_data.payload(trained)
    data = {
        **told,
        **page_json.pooled(page_json.without_details(told["runs"])),
        **_shown_first(curved, trained, drawn),
        "figures": [_drawn(figure) for figure in drawn],
        "palette": {"light": method_colors.LIGHT, "dark": method_colors.DARK, "dashes": method_colors.DASHES},
    }
    names = _SCRIPTS + (_OF_RUNS if trained else ()) + (("served.js",) if served else ())
    return part("report.html.j2").render(
        title=title,
        runs=runs,
        statuses=Counter(run.status for run in runs).most_common(),
        trained=bool(trained),
        served=served,
        settings=[setting for setting in settings if len(setting["rows"]) > 1],
        single=[setting for setting in settings if len(setting["rows"]) == 1],
        timed=timed,
        exhibits=exhibits,
        words=claims.WORDS,
        unmeasured=[
            {"title": e.title, "source": f"{e.paper}, {e.source}", "command": e.command}
            for e, blocks in evidence
            if not blocks
        ],
        searches=searched(runs, evidence),
        quick=any(block.scale == "quick" for _, blocks in evidence for block in blocks),
        top=remarks.top(),
        remarks=remarks.rest(),
        data=Markup(page_json.script_json(data)),
        details=Markup(page_json.details(told["runs"])),
        library=LIBRARY if beside else None,
        plotly=Markup("" if beside else get_plotlyjs()),
        css=Markup(part("report.css").render()),
        # The scripts stand inside the file: the page opens without a network, years later too.
        script=Markup("".join(part(name).render() for name in names)),
    )


def _heading(title: str) -> Markup:
    """Return a title as HTML that a narrow page breaks only between its words, not at a hyphen or before a dot."""
    words = title.replace(" · ", "\u00a0· ").split(" ")
    whole = Markup('<span class="whole">{}</span>')
    return Markup(" ").join(whole.format(word) if "-" in word else word for word in words)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts job 9 before job 10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _shown_first(found: Sequence[ranking.Ranking], runs: Sequence[Run], drawn: Sequence[Figure]) -> dict[str, Any]:
    """Return what the curves of runs begin with: those of the first setting alone, as unlike problems share no axes."""
    if not found:
        return {"first": []}
    places = {id(run): place for place, run in enumerate(runs)}
    first = [places[id(run)] for row in found[0].leading() for run in row.runs]
    return {"first": first, "metric": found[0].column, "log_y": drawn[0].log_y}


def _added(drawn: list[Figure], made: Sequence[Figure]) -> range:
    first = len(drawn)
    drawn.extend(made)
    return range(first, len(drawn))


def _drawn(figure: Figure) -> dict[str, Any]:
    """Return a figure for the scripts: bands in the place of deviations."""
    told = page_data.rounded(asdict(figure))
    for panel, own in zip(told["panels"], figure.panels, strict=True):
        panel.update(x=own.x or figure.x, log_x=own.log_x or figure.log_x)
        for curve, thinner in zip(panel["curves"], own.curves, strict=True):
            low, high = thinner.band(figure.log_y)
            curve.update(low=page_data.rounded(low), high=page_data.rounded(high))
            del curve["spread"], curve["least"]
    return told


def searched(runs: Sequence[Run], evidence: Sequence[tuple[Exhibit, list[Block]]]) -> list[dict[str, Any]]:
    """Return the searches among the runs that no exhibit uses: a name and lines each."""
    # By identity: two runs may have equal contents.
    used = {id(run) for _, blocks in evidence for block in blocks for run in block.runs}
    rest = [run for run in timing_runs.trained(runs) if id(run) not in used and run.status != "broken"]
    return [{"name": name, "lines": search.lines()} for name, search in search_results.among(rest)]


def table(block: Block) -> dict[str, Any]:
    """Return an exhibit's table as text: mean ± spread (and over how many seeds, if not all), published, difference."""
    exhibit = block.exhibit
    best = {search.best.name for search in block.searches()}
    columns = [c for c in exhibit.columns if any(cell.column == c for cell in exhibit.cells)]
    rows = []
    for row in exhibit.rows:
        cells = []
        for column in columns:
            # None where the paper's table has no cell; a cell without runs is a dash.
            cell = next((c for c in exhibit.cells if c.row == row and c.column == column), None)
            cells.append(None if cell is None else {**_cell(block, cell.id, cell.published), "best": cell.id in best})
        if any(cell is not None for cell in cells):
            rows.append({"name": row, "cells": cells})
    return {"columns": columns, "rows": rows}


def _cell(block: Block, name: str, published: float | None) -> dict[str, str]:
    metric = block.exhibit.metric
    text = {"measured": "–", "published": "", "difference": ""}
    if published is not None:
        text["published"] = metrics.text(metric, published)
    measured = block.cells.get(name)
    if measured is not None and measured.mean is not None:
        seeds = metrics.seeds_counted(len(measured.values), len(measured.values) + len(measured.lacking))
        text["measured"] = f"{metrics.with_spread(metric, measured.mean, measured.spread)}{seeds}"
        # At quick scale orders are compared, not numbers.
        if measured.difference is not None and block.scale != "quick":
            value = metrics.text(metric, abs(measured.difference))
            text["difference"] = f"{'−' if measured.difference < 0 else '+'}{value}"
    elif measured is not None:
        text["measured"] = ", ".join(sorted({_WITHOUT.get(run.status, run.status) for run in measured.runs}))
    return text


def _exhibit(exhibit: Exhibit, blocks: list[Block], drawn: list[Figure], remarks: Remarks) -> dict[str, Any]:
    shown_blocks = []
    for block in blocks:
        made = figures(block)
        # Either figures or a table: the end points of curves are in the figures already.
        shown_blocks.append(
            {
                "heading": provenance.heading(block),
                "table": None if made else table(block),
                "figures": _added(drawn, made),
                "claims": [{**asdict(verdict.claim), **asdict(verdict)} for verdict in block.verdicts],
                "counts": claims.counted(block.verdicts),
                "orders": [] if made else block.orders(),
                "ran": provenance.facts(block.runs),
                "deviations": block.deviations,
                "tuned": block.tuned,
                "commands": provenance.commands(block.runs),
            }
        )
    anchor = exhibit.id.replace("/", "-")
    return {**{key: getattr(exhibit, key) for key in ("id", "title", "paper", "source", "note")},
            "anchor": anchor, "blocks": shown_blocks, "remark": remarks.of(exhibit.id)}  # fmt: skip
