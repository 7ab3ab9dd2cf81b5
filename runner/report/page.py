"""The page: one HTML file that needs nothing else, with all runs, their curves, and the papers' tables beside them."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from runner.report import claims, metrics, provenance, search_results, timing_runs
from runner.report.curves import figures
from runner.report.evaluations import numbered, thinned
from runner.report.evidence import Block
from runner.report.published import Exhibit
from runner.report.run import Run, finite
from runner.report.settings import by_seed, differing, label, setting, shown
from runner.run_folder.columns import (
    EPOCH,
    SAMPLES,
    SECONDS,
    TEST_ERROR,
    TRAIN_ERROR,
    TRAIN_LOSS,
    UPDATES,
    VALIDATION_ERROR,
    VALIDATION_LOSS,
)
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    COMPLETED,
    FINAL_TEST_ERROR,
    FINAL_VALIDATION_ERROR,
    STATUS,
    TEST_ERROR_AT_BEST,
)

_COLUMNS = ("name", STATUS, "algorithm", "model", "dataset", "workers", "seed", "epochs", FINAL_TEST_ERROR,
            BEST_TEST_ERROR, "final_train_loss", "seconds", "samples_per_second")  # fmt: skip
# Beside the test errors, if any of the runs has a validation split.
_OF_VALIDATION = (FINAL_VALIDATION_ERROR, BEST_VALIDATION_ERROR, TEST_ERROR_AT_BEST)
# What a run that has not ended says only in its metrics.
_FROM_ROWS = {"epochs": "final_epoch", FINAL_TEST_ERROR: FINAL_TEST_ERROR, BEST_TEST_ERROR: "lowest_test_error",
              FINAL_VALIDATION_ERROR: FINAL_VALIDATION_ERROR, BEST_VALIDATION_ERROR: "lowest_validation_error",
              "final_train_loss": "final_train_loss", "seconds": "final_seconds"}  # fmt: skip
_WITHOUT = {COMPLETED: "not reached"}  # a run that went to its end and has no such number
# More columns do not fit beside those above; the rest is under each run's facts.
_OWN_KEYS = 14
# More points cannot be told apart on the page, and would make the file of hundreds of runs slow to load.
_POINTS = 400
_AXES = (EPOCH, SECONDS, UPDATES, SAMPLES)
_WORDS = {
    FINAL_TEST_ERROR: "test error, %",
    BEST_TEST_ERROR: "best test error, %",
    FINAL_VALIDATION_ERROR: "validation error, %",
    BEST_VALIDATION_ERROR: "best validation error, %",
    TEST_ERROR_AT_BEST: "test error at the best validation error, %",
    "workers": "M",
    "samples_per_second": "samples/s",
    EPOCH: "effective passes",
    TEST_ERROR: "test error, %",
    VALIDATION_ERROR: "validation error, %",
    VALIDATION_LOSS: "validation loss",
    TRAIN_ERROR: "training error, %",
    TRAIN_LOSS: "training loss",
}


def render(runs: Sequence[Run], evidence: Sequence[tuple[Exhibit, list[Block]]], title: str) -> str:
    """Build the page.

    Args:
        runs: all runs.
        evidence: the exhibits and what was measured of them.
        title: the page's.
    """
    # Names of runs and overrides come from whoever wrote the folder: escaped, they cannot bring scripts into the page.
    environment = Environment(loader=PackageLoader("runner.report"), autoescape=True, trim_blocks=True)
    drawn: list[dict[str, Any]] = []
    exhibits = [_exhibit(exhibit, blocks, drawn) for exhibit, blocks in evidence if blocks]
    unmeasured = [
        {"title": e.title, "source": f"{e.paper}, {e.source}", "command": e.command}
        for e, blocks in evidence
        if not blocks
    ]
    trained, clocks = timing_runs.trained(runs), timing_runs.timed(runs)
    timed = {"head": timing_runs.HEAD, "rows": timing_runs.rows(clocks)} if clocks else None
    if timed is not None:
        made = timing_runs.figures(clocks)
        timed["figures"] = range(len(drawn), len(drawn) + len(made))
        drawn.extend(_rounded(asdict(figure)) for figure in made)
    data = {**_payload(trained), "figures": drawn}
    part = environment.get_template
    return part("report.html.j2").render(
        title=title,
        runs=runs,
        statuses=Counter(run.status for run in runs).most_common(),
        trained=bool(trained),
        timed=timed,
        exhibits=exhibits,
        words=claims.WORDS,
        unmeasured=unmeasured,
        searches=searched(runs, evidence),
        quick=any(block.scale == "quick" for _, blocks in evidence for block in blocks),
        data=Markup(_script_json(data)),
        plotly=Markup(get_plotlyjs()),
        css=Markup(part("report.css").render()),
        # Plotly and the scripts stand inside the file: the page opens without a network, years later too.
        script=Markup(part("plots.js").render() + (part("runs.js").render() if trained else "")),
    )


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
        spread = f" ± {metrics.text(metric, measured.spread)}" if measured.spread is not None else ""
        seeds = metrics.seeds_counted(len(measured.values), len(measured.values) + len(measured.lacking))
        text["measured"] = f"{metrics.text(metric, measured.mean)}{spread}{seeds}"
        if measured.difference is not None:
            value = metrics.text(metric, abs(measured.difference))
            text["difference"] = f"{'−' if measured.difference < 0 else '+'}{value}"
    elif measured is not None:
        text["measured"] = ", ".join(sorted({_WITHOUT.get(run.status, run.status) for run in measured.runs}))
    return text


def _exhibit(exhibit: Exhibit, blocks: list[Block], drawn: list[dict[str, Any]]) -> dict[str, Any]:
    shown_blocks = []
    for block in blocks:
        made = figures(block)
        first = len(drawn)
        drawn.extend(_rounded(asdict(figure)) for figure in made)
        # Either figures or a table: the end points of curves are in the figures already.
        shown_blocks.append(
            {
                "heading": provenance.heading(block),
                "table": None if made else table(block),
                "figures": range(first, len(drawn)),
                "claims": [
                    {**asdict(verdict.claim), "word": verdict.word, "because": verdict.because}
                    for verdict in block.verdicts
                ],
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
            "anchor": anchor, "blocks": shown_blocks}  # fmt: skip


def _payload(runs: Sequence[Run]) -> dict[str, Any]:
    apart = [key for key in differing(runs) if key not in ("algorithm", "model", "dataset", "cluster.workers")]
    own = [key for key in apart if key != "cluster"][:_OWN_KEYS]
    curves = {id(run): curve for number, group in enumerate(by_seed(runs)) for run, curve in _curves(number, group)}
    # Some columns are only in the first or only in the last row; so not every row has to be read.
    quantities = dict.fromkeys(key for run in runs for row in run.rows[:1] + run.rows[-1:] for key in row)
    numbers = [key for key in quantities if key not in _AXES]
    place = _COLUMNS.index(BEST_TEST_ERROR) + 1
    beside = _OF_VALIDATION if any(_field(run, BEST_VALIDATION_ERROR) is not None for run in runs) else ()
    common = (*_COLUMNS[:place], *beside, *_COLUMNS[place:])
    errors = [error for run in runs if (error := metrics.measured(run, "lowest_test_error")) is not None]
    return {
        # By identity: a run is mutable, and has no hash.
        "runs": [{**_run(run, common, apart, own), **curves[id(run)]} for run in runs],
        "columns": [*common, *own],
        "metrics": [key for key in numbers if any(finite(row.get(key)) is not None for r in runs for row in r.rows)],
        "axes": [key for key in _AXES if key in quantities] or [EPOCH],
        "words": _WORDS,
        # A quarter above the best error: a target that most good runs reach, so that times to reach it can be compared.
        "target": min(99, math.ceil(min(errors) * 1.25)) if errors else None,
    }


def _run(run: Run, common: Sequence[str], apart: Sequence[str], own: Sequence[str]) -> dict[str, Any]:
    settings = setting(run)
    fields = {key: _field(run, key) for key in common}
    fields |= {key: shown(settings[key]) if key in settings else None for key in own}
    for key in own:
        # Numbers stay numbers, so that the page sorts 10 after 9.
        if finite(settings.get(key)) is not None:
            fields[key] = settings[key]
    short = label(run, apart)
    name = short if run.seed is None else f"{short} seed={run.seed}"
    # What the page's search box looks in.
    words = [run.name, name, *run.overrides, *(f"{key}={shown(value)}" for key, value in fields.items())]
    return {
        "label": name,
        "short": short,
        "ended": run.ended,
        "samples": run.number("samples") or 0,
        "fields": {**fields, "clock": run.summary.get("clock")},
        "search": " ".join(words).lower(),
        "problems": run.problems,
        "facts": _facts(run),
        **_activity(run),
    }


def _field(run: Run, key: str) -> Any:
    if key == "name":
        return run.name
    if key == STATUS:
        return run.status
    value = run.value(key)
    if value is None and key in _FROM_ROWS:
        value = metrics.measured(run, _FROM_ROWS[key])
    return value if isinstance(value, str) or finite(value) is not None else None


def _curves(number: int, group: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Yield the curves of a group of runs that differ in the seed alone, thinned to what a screen can show."""
    # Numbered before thinning: the numbers say which points of different seeds are one evaluation.
    evaluations = numbered([run.rows for run in group])
    for run, own, places in zip(group, evaluations, thinned(evaluations, _POINTS), strict=True):
        curve = _columns([run.rows[place] for place in places])
        yield run, {"group": number, "evaluations": [own[place] for place in places], "curve": curve}


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Return the metrics as columns, with the digits that one can see."""
    keys = dict.fromkeys(key for row in (*rows[:1], *rows[-1:]) for key in row)
    columns = {key: [_short(row.get(key)) for row in rows] for key in keys}
    return {key: column for key, column in columns.items() if any(value is not None for value in column)}


def _activity(run: Run) -> dict[str, Any]:
    histogram = run.workers().get("staleness")
    pairs = histogram.items() if isinstance(histogram, dict) else ()
    counts = [[int(key), count] for key, count in pairs if str(key).isdigit() and finite(count) is not None]
    spans = [[s["worker"], str(s.get("what")), _short(s["start"]), _short(s["end"])] for s in run.timeline()]
    return {"staleness": counts, "timeline": spans}


def _facts(run: Run) -> list[list[Any]]:
    head = [["folder", run.name], ["command", provenance.commands([run])[0]]]
    summary = [[key, _text(value)] for key, value in run.summary.items() if value is not None]
    return head + summary + [[key, shown(value)] for key, value in run.flat.items()]


def _text(value: Any) -> Any:
    if isinstance(value, str) or finite(value) is not None:
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items() if item is not None)
    return shown(value)


def _short(value: Any) -> float | None:
    number = finite(value)
    # Five digits are more than a screen shows, and keep the file small; whole numbers, as of samples, stay exact.
    return number if number is None or isinstance(number, int) else float(f"{number:.5g}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return _short(value) if isinstance(value, float) else value


def _script_json(data: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    # "<" could end the script; U+2028 ends a line in JavaScript, but not in JSON.
    return json.dumps(data, separators=(",", ":"), default=str).replace("<", "\\u003c").replace("\u2028", "\\u2028")
