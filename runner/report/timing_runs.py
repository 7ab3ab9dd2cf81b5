"""Runs of the clock alone (`run.timing_only=true`): a table of their own, throughput and staleness against workers.

They have trained nothing, so no table or figure of errors shows them, and none ranks them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence

from runner.report.curves import Curve, Figure, Panel
from runner.report.run import Run
from runner.report.settings import averaged, by_seed, differing, label, setting
from runner.run_folder import columns
from runner.run_folder.summary_keys import BYTES_SENT, EPOCH_SECONDS, SHARES, VIRTUAL_GRADIENTS, VIRTUAL_SAMPLES
from runner.run_folder.timing_result import bytes_text, number_text

HEAD = (
    "run",
    "samples per virtual s",
    "gradients per virtual s",
    "virtual s an epoch",
    "staleness mean",
    "largest",
    "computing",
    "transferring",
    "waiting",
    "sent",
)
_ALONG = ("cluster.workers", "run.epochs")
"""What runs of one curve may differ in: longer runs of more workers, so that each has some gradients."""
_WORKERS = "workers M"


def trained(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that trained, or were to."""
    return [run for run in runs if not run.timing_only]


def timed(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the clock alone that came to their end."""
    return [run for run in runs if run.timing_only and run.ended]


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """Return a row for each setting, as text under `HEAD`; the mean over the seeds."""
    apart = differing(runs)
    forms: tuple[tuple[str, Callable[[float], str]], ...] = (
        (VIRTUAL_SAMPLES, number_text),
        (VIRTUAL_GRADIENTS, number_text),
        (EPOCH_SECONDS, number_text),
        (columns.STALENESS_MEAN, number_text),
        (columns.STALENESS_MAX, number_text),
        *((key, "{:.1%}".format) for key in SHARES.values()),
        (BYTES_SENT, bytes_text),
    )
    made = []
    for group in sorted(by_seed(runs), key=lambda group: (_name(group[0], apart), group[0].number("workers") or 0)):
        means = [(form, _mean(group, key)) for key, form in forms]
        made.append([label(group[0], apart), *("–" if mean is None else form(mean) for form, mean in means)])
    return made


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Return throughput and staleness against the number of workers; nothing unless some number has a rival."""
    if len({run.number("workers") for run in runs}) < 2:
        return []
    made = []
    for name, title, unit, parts in (
        ("throughput", "Throughput of the clock alone", "samples per virtual s", {"": VIRTUAL_SAMPLES}),
        (
            "staleness",
            "Staleness on the clock alone",
            "updates between pull and push",
            {" mean": columns.STALENESS_MEAN, " largest": columns.STALENESS_MAX},
        ),
    ):
        panel = Panel(title, unit, _curves(runs, parts))
        # Where workers step together nobody pushes, and there is no staleness.
        if panel.curves:
            # What grows with M is then a straight line; a single worker has no staleness, and zero no logarithm.
            positive = all(value > 0 for curve in panel.curves for value in curve.y)
            made.append(Figure(f"timing-{name}", title, _WORKERS, [panel], log_y=positive, log_x=True))
    return made


def _curves(runs: Sequence[Run], parts: dict[str, str]) -> list[Curve]:
    """Return curves over the number of workers: one for each setting and each quantity of `parts`, by its suffix."""
    apart = [key for key in differing(runs) if key not in _ALONG]
    families: dict[str, list[Run]] = {}
    for run in runs:
        own = {key: value for key, value in setting(run).items() if key not in _ALONG}
        families.setdefault(json.dumps(own, sort_keys=True, default=str), []).append(run)
    curves: list[Curve] = []
    for family in families.values():
        by_workers: dict[float, list[Run]] = {}
        for run in family:
            if (workers := run.number("workers")) is not None:
                by_workers.setdefault(workers, []).append(run)
        for suffix, key in parts.items():
            means = {workers: _mean(group, key) for workers, group in sorted(by_workers.items())}
            known = {workers: mean for workers, mean in means.items() if mean is not None}
            if known:
                name = _name(family[0], apart) + suffix
                curves.append(Curve(name, len(curves), list(known), list(known.values()), [], None))
    return curves


def _name(run: Run, apart: Sequence[str]) -> str:
    """Return the name of a setting, whatever its number of workers is."""
    return label(run, [key for key in apart if key not in _ALONG]).replace(f" M={run.value('workers')}", "", 1)


def _mean(runs: Sequence[Run], key: str) -> float | None:
    values = [value for run in averaged(runs) if (value := run.number(key)) is not None]
    return statistics.fmean(values) if values else None
