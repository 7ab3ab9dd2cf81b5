"""The last table of a sweep: jobs that differ in their seed alone are a row, with mean and deviation over the seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from runner.run_folder import columns
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    COMPLETED,
    FINAL_TEST_ERROR,
    STATUS,
    TEST_ERROR_AT_BEST,
)
from runner.sweeps.job import Job, output_console, varying

_SEED = "seed="
_SHOWN = (
    # The first one that some job has decides which row is the best; less is better for all of them.
    {BEST_VALIDATION_ERROR: "best validation error %", TEST_ERROR_AT_BEST: "test error % then"},
    {FINAL_TEST_ERROR: "test error %", BEST_TEST_ERROR: "best %"},
    {columns.SUBOPTIMALITY: "suboptimality"},
    {"final_train_loss": "train loss"},
)
"""Keys of summaries and the heads of their columns, those to prefer first."""


@dataclass(frozen=True)
class Group:
    """Jobs that differ in their seed alone.

    Attributes:
        overrides: what they share, without the seed.
        summaries: of those that came to their end.
        jobs: how many there are.
    """

    overrides: tuple[str, ...]
    summaries: tuple[dict[str, Any], ...]
    jobs: int

    def values(self, key: str) -> list[float]:
        """Return the finite values that the summaries have of a key."""
        found = [summary.get(key) for summary in self.summaries]
        return [float(value) for value in found if value is not None and math.isfinite(value)]

    def mean(self, key: str) -> float | None:
        """Return the mean over all jobs; None if one of them has no value, as the mean would flatter the group."""
        values = self.values(key)
        return statistics.fmean(values) if len(values) == self.jobs else None


def groups_of(jobs: Sequence[Job]) -> list[Group]:
    """Return the groups of jobs that differ in their seed alone, in the order of their first jobs."""
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        found.setdefault(tuple(text for text in job.overrides if not text.startswith(_SEED)), []).append(job)
    groups = []
    for overrides, members in found.items():
        summaries = (job.summary() for job in members if job.code == 0)
        # A diverged run may have had a good error before.
        ended = tuple(summary for summary in summaries if summary.get(STATUS) == COMPLETED)
        groups.append(Group(overrides, ended, len(members)))
    return groups


def best_of(groups: Sequence[Group], key: str) -> Group | None:
    """Return the group with the lowest mean, of those of which every job has a value; None if there are not two."""
    means = {place: mean for place, group in enumerate(groups) if (mean := group.mean(key)) is not None}
    # The only one is the best of nothing.
    return groups[min(means, key=lambda place: means[place])] if len(means) > 1 else None


def print_seeds_table(jobs: Sequence[Job]) -> None:
    """Print mean and sample standard deviation over seeds; nothing if no two jobs differ in their seed alone."""
    groups = groups_of(jobs)
    if all(group.jobs < 2 for group in groups):
        return
    shown = next((keys for keys in _SHOWN if any(group.values(next(iter(keys))) for group in groups)), None)
    if shown is None:
        return
    best = best_of(groups, next(iter(shown)))
    table = Table(title="mean ± standard deviation over seeds", title_justify="left")
    table.add_column("overrides", overflow="fold")
    table.add_column("seeds", justify="right")
    for head in shown.values():
        table.add_column(head, justify="right")
    table.add_column("")
    for group, own in zip(groups, varying([group.overrides for group in groups]), strict=True):
        values = [group.values(key) for key in shown]
        count = f"{len(values[0])}" if len(values[0]) == group.jobs else f"{len(values[0])} of {group.jobs}"
        cells = [Text(" ".join(own)), count, *(_cell(found) for found in values)]
        table.add_row(*cells, "best" if group is best else "", style="bold" if group is best else "")
    output_console().print(table)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    # Errors in percent have two places; what may be tiny, as suboptimality, has digits instead.
    form = ".2f" if abs(mean) >= 0.1 else ".3g"
    # One value has no deviation.
    return f"{mean:{form}}" + (f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else "")
