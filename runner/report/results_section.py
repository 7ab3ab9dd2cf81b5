"""The page's first section: each setting's methods ranked, the answer in a sentence, and their curves."""

import statistics
from collections.abc import Sequence
from typing import Any

from runner.report import method_colors, metrics
from runner.report.curves import Curve, Figure, Panel, falls_far, mean_curve
from runner.report.page_data import POINTS
from runner.report.ranking import ALONE, CLEAR, EQUAL, UNDECIDED, Gap, Ranked, Ranking, level
from runner.run_folder import columns
from runner.run_folder.summary_keys import BYTES_SENT
from runner.run_folder.timing_result import bytes_text

_MEANING = {
    CLEAR: "clear, more than seeds vary",
    UNDECIDED: "undecided, seeds vary as much",
    ALONE: "one seed decides nothing",
}

_APART = 3.0


def colors(ranking: Ranking) -> dict[int, int]:
    """Return the colour and dash of each row, by its identity; they do not depend on who is best."""
    rows = sorted(ranking.rows, key=lambda row: row.name)
    given = method_colors.numbers([row.method for row in rows])
    return {id(row.runs): index for row, index in zip(rows, given, strict=True)}


def section(ranking: Ranking, number: int) -> dict[str, Any]:
    """Return what the template says about a setting."""
    leading = ranking.leading()
    clocks = sorted({clock for row in ranking.rows for clock in row.seconds()})
    return {
        "anchor": f"setting-{number}",
        "title": ranking.title,
        "detail": ranking.detail,
        "metric": _name(ranking),
        "beside": None if ranking.beside is None else metrics.name(ranking.beside),
        "clocks": clocks,
        "has_bytes": ranking.has_bytes,
        "sentences": sentences(ranking),
        "rows": _rows(ranking, leading, clocks),
        "all": _rows(ranking, ranking.rows, clocks) if len(leading) < len(ranking.rows) else [],
    }


def answer(ranking: Ranking) -> str:
    """Return the result in a sentence; in two if the best is the baseline of one worker, which is no method's rival."""
    return " ".join(map("".join, sentences(ranking)))


def sentences(ranking: Ranking) -> list[tuple[str, str, str]]:
    """Return the sentences of the answer: of each what stands before the method, the method, and the rest."""
    leading = ranking.leading()
    first = leading[0]
    if ranking.best is None:
        if first.mean is None:
            return [("", "", "No run has ended with a result yet.")]
        return [("", first.method, f"{_apart(first)}: {_reached(ranking, first)}.")]
    told = [("", first.method, f"{_apart(first)} is best with {_best(ranking, leading)}.")]
    rivals = [row for row in leading if row.whole and row.runs[0].value("workers") != 1]
    if first not in rivals and len(rivals) > 1:
        rest = f"{_apart(rivals[0])} is best with {_best(ranking, rivals)}."
        told.append(("Of several workers, ", rivals[0].method, rest))
    return told


def _apart(row: Ranked) -> str:
    return f" {row.apart}" if row.apart else ""


def _best(ranking: Ranking, rows: Sequence[Ranked]) -> str:
    told, gap = _reached(ranking, rows[0]), rows[0].gap
    if gap is None:
        return told
    if gap.word == EQUAL:
        return f"{told}, as is {rows[1].name}"
    if gap.mean == 0:
        return f"{told}, level with {rows[1].name}: seed by seed they differ by {gap_text(ranking.metric, gap)}"
    return f"{told}, ahead of {rows[1].name} by {gap_text(ranking.metric, gap)}: {_MEANING[gap.word]}"


def gap_text(metric: str, gap: Gap) -> str:
    """Return the mean of the differences and their deviation."""
    told = metrics.with_spread(metric, abs(gap.mean), gap.spread)
    return f"−{told}" if gap.mean < 0 else told


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
            panels.append(Panel(f"against {words}", quantity, curves, words, log_x=_end_apart(curves)))
    if not panels:
        return None
    return Figure(f"setting-{number}", ranking.title, panels[0].x, panels, log_y=falls_far(panels))


def _end_apart(curves: Sequence[Curve]) -> bool:
    """Return whether some curves end so early that a linear axis squeezes them, as beside a run of one worker."""
    ends = [max(curve.x) for curve in curves]
    return min(min(curve.x) for curve in curves) > 0 and max(ends) > _APART * min(ends)


def thin(curve: Curve) -> Curve:
    """Return a curve of no more points than a screen shows, its first and last among them."""
    count = len(curve.x)
    if count <= POINTS:
        return curve
    kept = sorted({round(place * (count - 1) / (POINTS - 1)) for place in range(POINTS)})
    x, y, spread, least = ([v[k] for k in kept] if v else [] for v in (curve.x, curve.y, curve.spread, curve.least))
    return Curve(curve.name, curve.index, x, y, spread, curve.published, least)


def _rows(ranking: Ranking, rows: Sequence[Ranked], clocks: Sequence[str]) -> list[dict[str, Any]]:
    given = colors(ranking)
    # A column each, whose numbers have as many decimals.
    seconds = [metrics.aligned([row.seconds().get(clock) for row in rows]) for clock in clocks]
    means = [level(row.mean) if row.whole and row.mean is not None else None for row in rows]
    return [
        {
            **_row(ranking, row, given),
            # Equal means share a rank, and the next one is left out.
            "place": "–" if mean is None else means.index(mean) + 1,
            "best": ranking.best is not None and mean is not None and means.index(mean) == 0,
            "seconds": [column[place] for column in seconds],
        }
        for place, (row, mean) in enumerate(zip(rows, means, strict=True))
    ]


def _row(ranking: Ranking, row: Ranked, given: dict[int, int]) -> dict[str, Any]:
    sent = [value for run in row.runs if run.ended and (value := run.number(BYTES_SENT)) is not None]
    shared = "" if row.gap is None or row.gap.seeds == len(row.values) else f" ({row.gap.seeds} seeds)"
    return {
        "color": given[id(row.runs)],
        "method": row.method,
        "apart": row.apart,
        "value": metrics.with_spread(ranking.metric, row.mean, row.spread),
        "beside": "" if ranking.beside is None else metrics.text(ranking.beside, row.average(ranking.beside)),
        "seeds": len(row.values),
        "statuses": row.statuses,
        "gap": "" if row.gap is None or row.gap.word == EQUAL else gap_text(ranking.metric, row.gap) + shared,
        "word": "" if row.gap is None else row.gap.word,
        "sent": bytes_text(statistics.fmean(sent)) if sent else "–",
    }


def _name(ranking: Ranking) -> str:
    return metrics.name(ranking.metric).removeprefix("final ")


def _reached(ranking: Ranking, row: Ranked) -> str:
    value, name = metrics.with_spread(ranking.metric, row.mean, row.spread), _name(ranking)
    seeds = f"{len(row.values)} seeds" if len(row.values) > 1 else "one seed"
    words = f"{value} % {name.removesuffix(', %')}" if name.endswith(", %") else f"{name} {value}"
    return f"{words} ({seeds})"
