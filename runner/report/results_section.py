"""The page's first section: each setting's methods ranked, the answer in a sentence, and their curves."""

import statistics
from collections.abc import Sequence
from typing import Any

from runner.report import method_colors, metrics
from runner.report.curves import Curve, Figure, Panel, falls_far, mean_curve
from runner.report.page_data import POINTS
from runner.report.ranking import ALONE, CLEAR, EQUAL, UNDECIDED, Gap, Ranked, Ranking
from runner.run_folder import columns
from runner.run_folder.summary_keys import BYTES_SENT
from runner.run_folder.timing_result import bytes_text, number_text

_MEANING = {
    CLEAR: "clear, more than seeds vary",
    UNDECIDED: "undecided, seeds vary as much",
    ALONE: "one seed decides nothing",
}


def colors(ranking: Ranking) -> dict[int, int]:
    """Return the colour and dash of each row, by its identity; they do not depend on who is best."""
    rows = sorted(ranking.rows, key=lambda row: row.name)
    given = method_colors.numbers([row.method for row in rows])
    return {id(row.runs): index for row, index in zip(rows, given, strict=True)}


def section(ranking: Ranking, number: int) -> dict[str, Any]:
    """Return what the template says about a setting."""
    leading = ranking.leading()
    given = colors(ranking)
    clocks = sorted({clock for row in ranking.rows for clock in row.seconds()})
    return {
        "anchor": f"setting-{number}",
        "title": ranking.title,
        "detail": ranking.detail,
        "metric": metrics.name(ranking.metric),
        "beside": None if ranking.beside is None else metrics.name(ranking.beside),
        "clocks": clocks,
        "has_bytes": ranking.has_bytes,
        "answer": answer(ranking),
        "rows": [_row(ranking, row, place, given, clocks) for place, row in enumerate(leading, start=1)],
        "all": [_row(ranking, row, place, given, clocks) for place, row in enumerate(ranking.rows, start=1)]
        if len(leading) < len(ranking.rows)
        else [],
    }


def answer(ranking: Ranking) -> str:
    """Return the result in a sentence; in two if the best is the baseline of one worker, which is no method's rival."""
    best = ranking.best
    if best is None:
        row = ranking.rows[0]
        return "No run has ended with a result yet." if row.mean is None else f"{row.name}: {_reached(ranking, row)}."
    leading = ranking.leading()
    told = f"{best.name} is best with {_best(ranking, leading)}."
    rivals = [row for row in leading if row.whole and row.runs[0].value("workers") != 1]
    if leading[0] not in rivals and len(rivals) > 1:
        told += f" Of several workers, {rivals[0].name} is best with {_best(ranking, rivals)}."
    return told


def _best(ranking: Ranking, rows: Sequence[Ranked]) -> str:
    told, gap = _reached(ranking, rows[0]), rows[0].gap
    if gap is None:
        return told
    if gap.word == EQUAL:
        return f"{told}, as is {rows[1].name}"
    return f"{told}, ahead of {rows[1].name} by {gap_text(ranking.metric, gap)}: {_MEANING[gap.word]}"


def gap_text(metric: str, gap: Gap) -> str:
    """Return the mean of the differences and their deviation."""
    return metrics.with_spread(metric, gap.mean, gap.spread)


def figure(ranking: Ranking, number: int) -> Figure | None:
    """Return the curves of a setting against effective passes and against the seconds of each clock."""
    given = colors(ranking)
    quantity = metrics.name(ranking.column)
    panels = []
    seconds = sorted({clock for row in ranking.leading() for clock in row.seconds()})
    for along, clock in ((columns.EPOCH, None), *((columns.SECONDS, clock) for clock in seconds)):
        curves = []
        for row in ranking.leading():
            runs = [run for run in row.runs if clock is None or str(run.summary.get("clock") or "unlabelled") == clock]
            curve = mean_curve(runs, along, ranking.column, row.name, given[id(row.runs)])
            if curve.x:
                curves.append(thin(curve))
        words = metrics.name(columns.EPOCH) if clock is None else f"{clock} seconds"
        if curves:
            panels.append(Panel(f"against {words}", quantity, curves, words))
    if not panels:
        return None
    return Figure(f"setting-{number}", ranking.title, panels[0].x, panels, log_y=falls_far(panels))


def thin(curve: Curve) -> Curve:
    """Return a curve of no more points than a screen shows, its first and last among them."""
    count = len(curve.x)
    if count <= POINTS:
        return curve
    kept = sorted({round(place * (count - 1) / (POINTS - 1)) for place in range(POINTS)})
    x, y, spread, least = ([v[k] for k in kept] if v else [] for v in (curve.x, curve.y, curve.spread, curve.least))
    return Curve(curve.name, curve.index, x, y, spread, curve.published, least)


def _row(ranking: Ranking, row: Ranked, place: int, given: dict[int, int], clocks: Sequence[str]) -> dict[str, Any]:
    seconds = row.seconds()
    sent = [value for run in row.runs if run.ended and (value := run.number(BYTES_SENT)) is not None]
    return {
        "place": place if row.whole else "–",
        "best": ranking.best is not None and row.runs is ranking.best.runs,
        "color": given[id(row.runs)],
        "method": row.method,
        "apart": row.apart,
        "value": metrics.with_spread(ranking.metric, row.mean, row.spread),
        "beside": "" if ranking.beside is None else metrics.text(ranking.beside, row.average(ranking.beside)),
        "seeds": len(row.values),
        "statuses": row.statuses,
        "gap": "" if row.gap is None or row.gap.word == EQUAL else gap_text(ranking.metric, row.gap),
        "word": "" if row.gap is None else row.gap.word,
        "seconds": [number_text(seconds[clock]) if clock in seconds else "–" for clock in clocks],
        "sent": bytes_text(statistics.fmean(sent)) if sent else "–",
    }


def _reached(ranking: Ranking, row: Ranked) -> str:
    value, name = metrics.with_spread(ranking.metric, row.mean, row.spread), metrics.name(ranking.metric)
    seeds = f"{len(row.values)} seeds" if len(row.values) > 1 else "one seed"
    words = f"{value} % {name.removesuffix(', %')}" if name.endswith(", %") else f"{name} {value}"
    return f"{words} ({seeds})"
