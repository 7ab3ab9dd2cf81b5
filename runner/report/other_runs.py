"""Tables and curves of the runs that belong to no paper's table or figure."""

import json
import statistics
from collections.abc import Sequence
from typing import Any

from runner.report import method_colors, metrics
from runner.report.curves import Figure, Panel, mean_curve
from runner.report.run import Run
from runner.report.settings import GROUPS, averaged, by_seed, differing, label, one_per_seed, setting, shown
from runner.run_folder import columns
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    BYTES_SENT,
    FINAL_TEST_ERROR,
    STATUS,
    TEST_ERROR_AT_BEST,
)
from runner.run_folder.timing_result import bytes_text

# More curves cannot be told apart; more panels nobody scrolls through.
_CURVES = 12
_FAMILY = (*(group for group in GROUPS if group != "algorithm"), "schedule.kind", "run.epochs", "run.batch_size")
_PANELS = 6
_NUMBERS = ("epochs", FINAL_TEST_ERROR, BEST_TEST_ERROR, BEST_VALIDATION_ERROR, TEST_ERROR_AT_BEST, "seconds")


def tables(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return tables of runs, one for each group that shares its data, schedule and length.

    Every setting in which any of the runs differ is said: above a table if all of its runs share it, else beside each.
    """
    # A run without a summary has hardly any settings, and would seem to differ from all others in everything.
    known = [run for run in runs if run.status != "broken"]
    among_all = _settings_apart(known)
    families: dict[str, list[Run]] = {}
    for run in known:
        own = setting(run)
        kept = {key: value for key, value in own.items() if key in _FAMILY or key.startswith("dataset.")}
        families.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    made = []
    for family in families.values():
        inside = _settings_apart(family)
        # A method's own key stands for the methods that have it.
        every = {key: value for run in family for key, value in setting(run).items() if value is not None}
        shared = [key for key in among_all if key not in inside and key in every]
        made.append(
            {
                "title": f"{family[0].value('model')} on {family[0].value('dataset')}, {family[0].value('cluster')}",
                "shared": ", ".join(f"{key}={shown(every[key])}" for key in shared),
                "differ": bool(inside),
                "validated": any(run.number(BEST_VALIDATION_ERROR) is not None for run in family),
                "sent": any(run.number(BYTES_SENT) is not None for run in family),
                "rows": [_row(group, inside) for group in by_seed(family)],
            }
        )
    return made


def _settings_apart(runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs differ, without those in a run's name or its table's title."""
    return [key for key in differing(runs) if key not in (*GROUPS, "cluster.workers", "cluster.kind")]


def _row(group: Sequence[Run], inside: Sequence[str]) -> dict[str, str]:
    own = setting(group[0])
    runs = averaged(group)
    told = dict.fromkeys(run.status for run in runs)
    seeds = {run.seed for run in runs}
    # Named in the row: without the seeds that did not end, the mean may look better than the method is.
    stopped = [run for run in one_per_seed(group) if run.seed not in seeds]
    sent = [value for run in runs if (value := run.number(BYTES_SENT)) is not None]
    left_out = [f"left out: seed {run.seed} {run.status}" for run in stopped]
    return {
        "name": label(group[0], ()),
        "apart": ", ".join(f"{key}={shown(own[key])}" for key in inside if key in own),
        "seeds": ", ".join(map(str, sorted(seed for seed in seeds if seed is not None))),
        STATUS: ", ".join([*told, *left_out]),
        **{key: _mean(runs, key) for key in _NUMBERS},
        "clock": str(runs[0].summary.get("clock") or ""),
        BYTES_SENT: bytes_text(statistics.fmean(sent)) if sent else "–",
    }


def _mean(runs: Sequence[Run], metric: str) -> str:
    values = [value for run in runs if (value := run.number(metric)) is not None]
    if not values:
        return "–"
    # A length is no quantity to average: the group shares `run.epochs`, and the largest says how far it came.
    if metric == "epochs":
        return f"{max(values):g}"
    spread = statistics.stdev(values) if len(values) > 1 else None
    mean = metrics.with_spread(metric, statistics.fmean(values), spread)
    return f"{mean}{metrics.seeds_counted(len(values), len(runs))}"


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Return figures of the test error, one for each dataset and model."""
    panels: dict[str, Panel] = {}
    known = [run for run in runs if run.rows]
    apart = [key for key in differing(known) if key not in ("model", "dataset")]
    groups = by_seed(known)
    colors = method_colors.numbers([str(group[0].value("algorithm")) for group in groups])
    for group, index in zip(groups, colors, strict=True):
        title = f"{group[0].value('model')} on {group[0].value('dataset')}"
        panel = panels.setdefault(title, Panel(title, metrics.name(columns.TEST_ERROR), []))
        curve = mean_curve(group, columns.EPOCH, columns.TEST_ERROR, label(group[0], apart), index)
        if curve.x and len(panel.curves) < _CURVES:
            panel.curves.append(curve)
    filled = [panel for panel in panels.values() if panel.curves]
    return [
        Figure(f"runs-{number}", panel.title, metrics.name(columns.EPOCH), [panel])
        for number, panel in enumerate(filled[:_PANELS], start=1)
    ]
