"""The result: methods ranked under each setting, and whether one is ahead of the next by more than its seeds vary.

A setting is a model, a dataset and a cluster, and how long runs are: what differs in these is another problem, and its
errors are compared with nothing here. The page and the end of a sweep show the same ranking.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.report import claims, metrics
from runner.report.over_seeds import OverSeeds
from runner.report.run import Run
from runner.report.settings import GROUPS, by_seed, differing, one_per_seed, setting, short, shown
from runner.run_folder.summary_keys import (
    BEST_VALIDATION_ERROR,
    BYTES_SENT,
    COMPLETED,
    DIVERGED,
    FINAL_TEST_ERROR,
    TEST_ERROR_AT_BEST,
)

RANKED_BY = (BEST_VALIDATION_ERROR, FINAL_TEST_ERROR, "final_suboptimality", "final_duality_gap", "final_train_loss")
"""The first of them that tells methods apart ranks them; less is better for all. The split that chose comes first."""
CURVE_OF = {BEST_VALIDATION_ERROR: "validation_error"}
"""The column of the metrics whose curve shows a ranking's number, if it is not the name without `final_`."""
CLEAR, UNDECIDED, ALONE, EQUAL = "clear", "undecided", "one seed", "equal"
_PARTS = ("model", "dataset", "cluster")
# These are of one run and its files, or are said by the number of workers and the option's name.
_OF_A_RUN = frozenset({"cluster.workers", "cluster.kind", "cluster.trace", "cluster.record", "cluster.interface"})
_IN_A_NAME = 4
_FEW = 10
# Of a value: what is left of a sum of differences that add up to nothing.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Gap:
    """How far a row is ahead of the next, by seed: both rows' runs of a seed start from the same weights.

    Attributes:
        mean: of the differences, the next minus this.
        spread: their sample standard deviation; None of one seed.
        seeds: how many seeds both have.
        word: `CLEAR` if the 95 % interval of the mean (Student's t) leaves out zero, `UNDECIDED` if not; `EQUAL` if no
            seed differs; `ALONE` of one seed, which decides nothing.
    """

    mean: float
    spread: float | None
    seeds: int
    word: str


@dataclass(frozen=True)
class Ranked(OverSeeds):
    """Runs that differ in their seed alone.

    Attributes:
        method: the algorithm's option.
        apart: what else distinguishes it from the other rows, as `M=8 lr=0.1`; empty if the method alone does.
        runs: one of each seed.
        values: the number that ranks, by seed, of the runs that have ended with one.
        gap: to the next row; None if there is none, or if one of the two cannot be compared.
    """

    method: str
    apart: str
    runs: list[Run]
    values: Mapping[int | None, float]
    gap: Gap | None = None

    @property
    def name(self) -> str:
        """The method and what else distinguishes it."""
        return f"{self.method} {self.apart}".strip()

    @property
    def whole(self) -> bool:
        """Whether every seed ended with a value: a mean over the others would flatter the method."""
        return len(self.values) == len(self.runs) > 0

    @property
    def statuses(self) -> str:
        """How its runs without a value ended, in words; empty if all have one."""
        lacking = [run for run in self.runs if run.seed not in self.values]
        told = dict.fromkeys("not reached" if run.status == COMPLETED else run.status for run in lacking)
        return f"{len(self.values)} of {len(self.runs)} seeds; {', '.join(told)}" if lacking else ""

    def average(self, metric: str) -> float | None:
        """Return the mean of another number of its runs that ended; None if they have none."""
        found = [value for run in self.runs if run.ended and (value := metrics.measured(run, metric)) is not None]
        return statistics.fmean(found) if found else None

    def seconds(self) -> dict[str, float]:
        """Return the mean seconds by the clock that measured them: virtual and measured ones are not comparable."""
        by_clock: dict[str, list[float]] = {}
        for run in self.runs:
            if run.ended and (value := metrics.measured(run, "seconds")) is not None:
                by_clock.setdefault(str(run.summary.get("clock") or "unlabelled"), []).append(value)
        return {clock: statistics.fmean(values) for clock, values in by_clock.items()}


@dataclass(frozen=True)
class Ranking:
    """The rows of one setting, best first; those that cannot be compared stand at the end.

    Attributes:
        title: model, dataset, number of workers and length, in words.
        detail: what else the setting is, as far as others of the same model and dataset differ in it.
        metric: the number that ranks.
        rows: the rows; the first is the best if it has a `mean` and is `whole`.
    """

    title: str
    detail: str
    metric: str
    rows: list[Ranked]

    @property
    def best(self) -> Ranked | None:
        """The best row; None if there is nothing that it is better than."""
        comparable = [row for row in self.rows if row.whole]
        return comparable[0] if len(comparable) > 1 else None

    def leading(self) -> list[Ranked]:
        """Return the rows to show first: all if they are few, else the best of each method and number of workers."""
        if len(self.rows) <= _FEW:
            return self.rows
        kept: dict[tuple[str, Any], Ranked] = {}
        # Settings that one seed alone has tried come last: the others went on with a better one.
        for row in sorted(self.rows, key=lambda row: -len(row.runs)):
            kept.setdefault((row.method, row.runs[0].value("workers")), row)
        kept = {key: row for row in self.rows for key, found in kept.items() if found is row}
        # A search of one method has its best at the top, and the next ones are as good to know.
        return _with_gaps(list(kept.values())) if len(kept) > 1 else self.rows[:_FEW]

    @property
    def beside(self) -> str | None:
        """The number to show beside the one that ranks, which was chosen by the validation split."""
        return TEST_ERROR_AT_BEST if self.metric == BEST_VALIDATION_ERROR else None

    @property
    def column(self) -> str:
        """The column of the metrics whose curves belong to it."""
        return CURVE_OF.get(self.metric, self.metric.removeprefix("final_"))

    @property
    def has_bytes(self) -> bool:
        """Whether some run knows what was sent."""
        return any(run.number(BYTES_SENT) is not None for row in self.rows for run in row.runs)


def rankings(runs: Iterable[Run]) -> list[Ranking]:
    """Rank the methods under each setting of the runs that trained.

    Returns:
        the settings, those with most methods and seeds first, then in the order of their first runs.
    """
    trained = [run for run in runs if not run.timing_only and run.status != "broken"]
    alike: dict[tuple[Any, ...], list[Run]] = {}
    for run in trained:
        alike.setdefault(tuple(run.value(part) for part in _PARTS), []).append(run)
    made = []
    for members in alike.values():
        # Told only where settings that one could take for the same differ in it.
        apart = [key for key in differing(members) if _of_problem(key) and key not in GROUPS]
        made += [ranking(part, apart) for problem in _problems(members) for part in _by_workers(problem)]
    # `sorted` is stable.
    return sorted(made, key=_least_to_tell)


def _least_to_tell(found: Ranking) -> tuple[int, int]:
    """Return a key that sorts: most methods first, then most seeds, of which one decides nothing."""
    return -len({row.method for row in found.rows}), -max(len(row.values) for row in found.rows)


def ranking(runs: Sequence[Run], apart: Sequence[str] = ()) -> Ranking:
    """Rank runs of one setting.

    Args:
        runs: at least one.
        apart: keys of the setting to tell.
    """
    groups = _groups(runs)
    metric = _metric(groups)
    rows = []
    for group, words in zip(groups, _told_apart(groups), strict=True):
        # The numbers that a diverged run has are of a moment before, or of weights that are no result.
        found = ((run.seed, metrics.measured(run, metric)) for run in group if run.ended and run.status != DIVERGED)
        values = {seed: value for seed, value in found if value is not None}
        rows.append(Ranked(str(group[0].value("algorithm") or group[0].name), words, group, values))
    rows.sort(key=lambda row: (not row.whole, not row.values, math.inf if row.mean is None else level(row.mean)))
    return Ranking(_title(runs), _detail(runs[0], apart), metric, _with_gaps(rows))


def level(mean: float) -> float:
    """Return a mean without the digits that only the order of a sum decides: equal means rank as equal."""
    return float(f"{mean:.9g}")


def _problems(runs: Sequence[Run]) -> list[list[Run]]:
    """Split runs of one model, dataset and cluster where their options or their lengths differ."""
    # Only keys whose values differ: a run from before a key existed is not kept apart from those that have its default.
    keys = [key for key in differing(runs) if _of_problem(key)]
    found: dict[str, list[Run]] = {}
    for run in runs:
        own = setting(run)
        problem = [run.flat.get("run.epochs"), run.config.get("scale"), *(own.get(key) for key in keys)]
        found.setdefault(json.dumps(problem, default=str), []).append(run)
    return list(found.values())


def _of_problem(key: str) -> bool:
    return key.partition(".")[0] in _PARTS and key not in _OF_A_RUN


def _by_workers(runs: Sequence[Run]) -> list[list[Run]]:
    """Split runs of a problem by their number of workers, if methods are to be compared under several of them.

    A run of one worker is the baseline of each. Where one method alone runs on several numbers of workers, as in a
    study of its speed-up, these are its rows, and stay together.
    """
    methods: dict[Any, set[str]] = {}
    for run in runs:
        methods.setdefault(run.value("workers"), set()).add(str(run.value("algorithm")))
    rivals = [workers for workers, found in methods.items() if workers not in (1, None) and len(found) > 1]
    if len(rivals) < 2:
        return [list(runs)]
    return [
        [run for run in runs if run.value("workers") in (workers, 1)]
        for workers in sorted(found for found in methods if found not in (1, None))
    ]


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs that differ in their seed alone, one of each seed."""
    methods: dict[Any, list[Run]] = {}
    for run in runs:
        methods.setdefault(run.value("algorithm"), []).append(run)
    # As above: seeds of one setting may have been run by two versions of the program.
    groups = [group for same in methods.values() for group in by_seed(same, differing(same))]
    return [one_per_seed(group) for group in groups]


def _metric(groups: Sequence[Sequence[Run]]) -> str:
    known = []
    for metric in RANKED_BY:
        values = {value for group in groups for run in group if (value := metrics.measured(run, metric)) is not None}
        # What is the same for all, as an error of 0, ranks nothing.
        if len(values) > 1:
            return metric
        known += [metric] * len(values)
    return known[0] if known else FINAL_TEST_ERROR


def _told_apart(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return what distinguishes the rows beside their method: keys of a method only among the rows of that method."""
    firsts = [group[0] for group in groups]
    shared = [key for key in differing(firsts) if not key.startswith("algorithm") and key not in _OF_A_RUN | {*GROUPS}]
    counts = {run.value("workers") for run in firsts}
    # Beside the baseline of one worker the others' number is that of the title.
    named = set() if len(counts) < 2 else {1} if len(counts) == 2 and 1 in counts else counts
    told = []
    for run in firsts:
        same = [other for other in firsts if other.value("algorithm") == run.value("algorithm")]
        own = setting(run)
        keys = [key for key in differing(same) if key.startswith("algorithm.") and key in own]
        keys += [key for key in shared if key in own]
        workers = [f"M={run.value('workers')}"] if run.value("workers") in named else []
        told.append(" ".join([*workers, *(f"{short(key)}={shown(own[key])}" for key in keys[:_IN_A_NAME])]))
    names = [(str(run.value("algorithm")), words) for run, words in zip(firsts, told, strict=True)]
    # Runs of two versions of the program may differ in a key that only one of them has.
    return [
        f"{words} ({run.name})".strip() if names.count(name) > 1 else words
        for name, words, run in zip(names, told, firsts, strict=True)
    ]


def _with_gaps(rows: Sequence[Ranked]) -> list[Ranked]:
    return [
        replace(row, gap=None if other is None else _gap(row, other))
        for row, other in zip(rows, [*rows[1:], None], strict=True)
    ]


def _gap(row: Ranked, other: Ranked) -> Gap | None:
    if not (row.whole and other.whole):
        return None
    differences = [other.values[seed] - value for seed, value in row.values.items() if seed in other.values]
    if not differences:
        return None
    mean = statistics.fmean(differences)
    if abs(mean) < _NOTHING * max(map(abs, row.values.values())):
        mean = 0.0
    if not any(differences):
        return Gap(0.0, None, len(differences), EQUAL)
    if len(differences) == 1:
        return Gap(mean, None, 1, ALONE)
    low, high = claims.interval(differences)
    word = CLEAR if low > 0 or high < 0 else UNDECIDED
    return Gap(mean, statistics.stdev(differences), len(differences), word)


def _title(runs: Sequence[Run]) -> str:
    first = runs[0]
    parts = [f"{first.value('model')} on {first.value('dataset')}"]
    if counts := sorted({m for run in runs if isinstance(m := run.value("workers"), int)}):
        # A run of one worker is the baseline beside them.
        parts.append(f"M={','.join(map(str, [m for m in counts if m > 1] or counts))}")
    epochs = first.flat.get("run.epochs")
    if isinstance(epochs, int | float):
        parts.append(f"{epochs:g} effective passes")
    return " · ".join(parts)


def _detail(run: Run, apart: Sequence[str]) -> str:
    own = setting(run)
    scale = run.config.get("scale")
    parts = [str(run.value("cluster")), *([] if scale is None else [f"{scale} scale"])]
    return ", ".join(parts + [f"{short(key)}={shown(own[key])}" for key in apart if own.get(key) is not None])
