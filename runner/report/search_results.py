"""The best setting of a search and what its neighbours reach: how sharp the choice is, whether it is at an edge."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.report import metrics
from runner.report.run import Run, finite
from runner.report.settings import by_seed, label, one_per_seed, setting, shown
from runner.run_folder.summary_keys import BEST_TEST_ERROR, PRUNED, TEST_ERROR_AT_BEST

_SEARCHED = ("algorithm.", "schedule.")
_LEAST = 3  # settings that make a search
_NEAREST = 4
_NAMED = 8


@dataclass(frozen=True)
class Tried:
    """A setting and what it reached.

    Attributes:
        name: the name to show.
        axes: the numbers that were searched.
        apart: what else keeps settings apart, which are then searches of their own.
        value: the mean over the seeds.
        spread: the standard deviation, None of one seed.
        having: seeds that have a value.
        lacking: seeds that have none.
        tested: the test error if `value` is of the validation split, in words.
    """

    name: str
    axes: Mapping[str, float]
    apart: str
    value: float
    spread: float | None = None
    having: int = 1
    lacking: int = 0
    tested: str = ""


@dataclass(frozen=True)
class Search:
    """The outcome of a search.

    Attributes:
        best: the best of the settings that lack a value for the fewest seeds.
        tried: how many there were.
        neighbours: the next setting in each direction along each axis, all else being equal; where there is none at
            all, as between random settings, the nearest few.
        edges: axes whose smallest or largest value tried is the best, in words.
        metric: what the best is the best of.
        pruned: names of the settings that the search's pruner stopped.
    """

    best: Tried
    tried: int
    neighbours: list[Tried]
    edges: list[str]
    metric: str
    pruned: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Return the outcome in words, a line each for the best, its neighbours, and edges."""
        metric = self.metric
        by = f" by {_words(metric)}" if self.best.tested else ""
        told = [f"best of {self.tried + len(self.pruned)}{by}: {self.best.name} at {_value(self.best, metric)}"]
        if self.best.tested:
            told.append(f"its {self.best.tested}")
        if self.neighbours:
            beside = (f"{n.name} {_value(n, metric)} ({self._difference(n)})" for n in self.neighbours)
            told.append(f"beside it: {'; '.join(beside)}")
        if self.edges:
            told.append(f"at the edge of what was tried: {', '.join(self.edges)}")
        if self.pruned:
            more = f" and {len(self.pruned) - _NAMED} more" if len(self.pruned) > _NAMED else ""
            told.append(f"pruned, {len(self.pruned)} settings: {'; '.join(self.pruned[:_NAMED])}{more}")
        return told

    def _difference(self, other: Tried) -> str:
        difference = other.value - self.best.value
        return f"{'−' if difference < 0 else '+'}{metrics.text(self.metric, abs(difference))}"


def searches(
    tried: Sequence[Tried], metric: str, pruned: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None
) -> list[Search]:
    """Find the best of each search.

    Args:
        tried: the settings; those that are `apart` are searches of their own.
        metric: what the values are; of accuracies and speeds the largest is best, of all else the smallest.
        pruned: by `apart`, names and axes of settings that were stopped: they have no value, but were tried.
    """
    groups: dict[str, list[Tried]] = {}
    for one in tried:
        groups.setdefault(one.apart, []).append(one)
    stopped = {apart: (pruned or {}).get(apart, {}) for apart in groups}
    return [
        _search(group, metric, stopped[apart])
        for apart, group in groups.items()
        if len(group) + len(stopped[apart]) > 1
    ]


def among(runs: Sequence[Run]) -> list[tuple[str, Search]]:
    """Find searches: runs that differ only in numbers of the method and the schedule, and in the seed.

    Returns:
        each search of at least three settings, with the name of what its runs share; by the best validation error if
        they have a validation split, else by the best test error.
    """
    tried: dict[str, list[Tried]] = {}
    names: dict[str, str] = {}
    pruned: dict[str, dict[str, dict[str, float]]] = {}
    groups: dict[str, list[list[Run]]] = {}
    # Two passes: what runs share outside the searched sections makes the searches, then inside each the axes are found.
    cut: dict[str, list[Run]] = {}
    for group in by_seed(run for run in runs if run.ended or run.status == PRUNED):
        own = setting(group[0])
        rest = {key: value for key, value in own.items() if not _is_axis(key, value)}
        apart = json.dumps(rest, sort_keys=True, default=str)
        # A setting's first run alone is judged, so none that was pruned has ended with another seed.
        if any(run.status == PRUNED for run in group):
            cut.setdefault(apart, []).append(group[0])
        else:
            groups.setdefault(apart, []).append(group)
    for apart, same in groups.items():
        stopped = cut.get(apart, [])
        settings = [setting(run) for run in (*(group[0] for group in same), *stopped)]
        metric = metrics.chosen_by(BEST_TEST_ERROR, [group[0] for group in same])
        shown_beside = TEST_ERROR_AT_BEST if metric != BEST_TEST_ERROR else None
        # The first setting's keys do for all: runs of one method, which these are, have the same keys.
        axes = [key for key in settings[0] if len({json.dumps(own.get(key)) for own in settings}) > 1]
        for own in settings[len(same) :]:
            name = " ".join(f"{key}={shown(own.get(key))}" for key in axes)
            pruned.setdefault(apart, {})[name] = {key: float(own[key]) for key in axes if key in own}
        for group, own in zip(same, settings[: len(same)], strict=True):
            counting = one_per_seed(group)
            values = [value for run in counting if (value := metrics.measured(run, metric)) is not None]
            if values:
                name = " ".join(f"{key}={shown(own.get(key))}" for key in axes)
                point = {key: float(own[key]) for key in axes if key in own}
                names[apart] = f"{label(group[0], [])}, {group[0].value('model')} on {group[0].value('dataset')}"
                seeds = len(values), len(counting) - len(values)
                one = Tried(name, point, apart, *mean_and_spread(values), *seeds, tested(counting, shown_beside))
                tried.setdefault(metric, []).append(one)
    found = [s for metric, own in tried.items() for s in searches([one for one in own if one.axes], metric, pruned)]
    # Two settings are a comparison, not a search.
    return [(names[search.best.apart], search) for search in found if search.tried + len(search.pruned) >= _LEAST]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation, which one value has none of."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def tested(runs: Sequence[Run], metric: str | None) -> str:
    """Return a metric of the test set in words, with its mean over runs of several seeds; empty if none has it."""
    values = [value for run in runs if metric and (value := metrics.measured(run, metric)) is not None]
    if not metric or not values:
        return ""
    mean, spread = mean_and_spread(values)
    return f"{_words(metric)}: {_text(metric, mean, spread)}{metrics.seeds_counted(len(values), len(runs))}"


def _search(group: Sequence[Tried], metric: str, pruned: Mapping[str, Mapping[str, float]]) -> Search:
    sign = -1.0 if metrics.largest_is_best(metric) else 1.0
    best = min(group, key=lambda one: (one.lacking, sign * one.value))
    # An axis with one value has no neighbours, and its value would be at both edges.
    points = [*(one.axes for one in group), *pruned.values()]
    keys = [key for key in best.axes if len({point.get(key) for point in points}) > 1]
    beside: list[Tried] = []
    for key in keys:
        line = [
            one for one in group if one is not best and all(one.axes.get(k) == best.axes[k] for k in keys if k != key)
        ]
        # A setting that lacks the axis is neither below nor above: the infinities keep it out of both.
        below = [one for one in line if one.axes.get(key, math.inf) < best.axes[key]]
        above = [one for one in line if one.axes.get(key, -math.inf) > best.axes[key]]
        beside += [max(below, key=lambda one: one.axes[key])] if below else []
        beside += [min(above, key=lambda one: one.axes[key])] if above else []
    if not beside:
        others = [one for one in group if one is not best and set(keys) <= set(one.axes)]
        # Random points share no coordinate with the best, so no line passes through both.
        beside = sorted(others, key=lambda one: _distance(one, best, keys, group))[:_NEAREST]
    edges = []
    for key in keys:
        values = [point[key] for point in points if key in point]
        for word, end in (("smallest", min(values)), ("largest", max(values))):
            # A best value at an edge may have a better one beyond it, which was not tried.
            if best.axes[key] == end:
                edges.append(f"{key}={shown(end)} is the {word}")
    return Search(best, len(group), beside, edges, metric, list(pruned))


def _distance(one: Tried, other: Tried, keys: Sequence[str], group: Sequence[Tried]) -> float:
    """Return how far settings are apart, as a share of the range tried on each axis; if positive, on a log scale."""
    total = 0.0
    for key in keys:
        values = [point.axes[key] for point in group if key in point.axes]
        # Rates and decays are searched over decades: 0.001 to 0.01 is as far as 0.1 to 1.
        scale = math.log if min(values) > 0 else float
        total += ((scale(one.axes[key]) - scale(other.axes[key])) / (scale(max(values)) - scale(min(values)))) ** 2
    return total


def _is_axis(key: str, value: Any) -> bool:
    return key.startswith(_SEARCHED) and finite(value) is not None


def _value(one: Tried, metric: str) -> str:
    counted = metrics.seeds_counted(one.having, one.having + one.lacking)
    return f"{_text(metric, one.value, one.spread)}{counted}"


def _words(metric: str) -> str:
    return metrics.name(metric).removesuffix(", %")


def _text(metric: str, mean: float, spread: float | None) -> str:
    return f"{metrics.text(metric, mean)}{f' ± {metrics.text(metric, spread)}' if spread is not None else ''}"
