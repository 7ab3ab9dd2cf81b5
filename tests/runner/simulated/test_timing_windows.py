"""Windows of pushes beside pushes one by one: the same run, to the bit."""

from typing import Any, cast

import numpy as np
import pytest

from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.events import ClockEvents
from runner.simulated.timing_server import TimingServer
from runner.simulated.timing_windows import TimingWindows
from runner.train import build
from runner.train.components import RunComponents
from tests.trial import compose

GIVEN = ("run.timing_only=true", "model=linear", "dataset.limit_train=101", "dataset.limit_test=5", "run.batch_size=2")
SLOW = ("cluster.network.latency=0.05", "cluster.network.bandwidth=1e6", "cluster.stragglers.probability=0.3")


def told(kind: type[TimingServer], components: RunComponents, most: int) -> tuple[list[Any], dict[str, Any]]:
    """What a run says of itself at each half pass, and its report."""
    timeline, n = TimelineTotals(components.workers), components.parameters
    layout = components.method.layout(n)
    events = ClockEvents(components.clock(), timeline, layout=layout, workers=components.workers)
    run = kind(components.method, events, parameters=n, batches=components.batches, timeline=timeline)
    found, due = [], 0.5
    while not run.finished:
        run.advance(due, most)
        if run.finished or run.reached(due):
            found.append((run.samples_seen, run.updates, run.seconds, run.nbytes, timeline.staleness_since_last()))
            due += 0.5
    return found, timeline.report(run.seconds)


@pytest.mark.parametrize("workers", [60, *(pytest.param(few, marks=pytest.mark.slow) for few in (1, 2, 7))])
@pytest.mark.parametrize(
    "overrides",
    [
        ("cluster.compute.distribution=constant",),
        ("cluster.compute.distribution=gamma", "cluster.compute.cv_task=1.5", *SLOW),
        (*SLOW, "cluster.network.server_seconds=0.03"),
        ("algorithm=asysvrg", "algorithm.inner=150", *SLOW),
        ("algorithm=asysvrg", "cluster.compute.distribution=lognormal", "cluster.network.server_seconds=0.01"),
    ],
    ids=lambda overrides: overrides[0].partition("=")[2],
)
def test_windows_are_single_events(workers: int, overrides: tuple[str, ...]):
    components = build.build_run(compose(*GIVEN, *overrides, f"cluster.workers={workers}", "run.epochs=9.3"))
    assert told(TimingWindows, components, 1000) == told(TimingServer, components, 1000)
    assert told(TimingWindows, components, 13) == told(TimingServer, components, 1000)


def test_windows_take_nearly_all_pushes(monkeypatch: pytest.MonkeyPatch):
    components = build.build_run(compose(*GIVEN, "cluster.workers=60", "run.epochs=30"))
    taken, take = list[int](), TimingWindows._take

    def counted(run: TimingWindows, workers: Any, *rest: Any) -> None:
        taken.append(len(workers))
        take(run, workers, *rest)

    monkeypatch.setattr(TimingWindows, "_take", counted)
    told(TimingWindows, components, 10_000)
    assert sum(taken) >= 0.9 * len(components.batches)
    assert sum(taken) / len(taken) > 15


def test_window_ends_before_what_follows_from_it():
    count, nothing = TimingWindows._unaffected, cast(Any, None)
    arrivals = np.array([1.0, 2.0, 3.0, 4.0])
    assert count(nothing, arrivals, np.array([9.0, 9.0, 9.0, 9.0])) == 4
    assert count(nothing, arrivals, np.array([9.0, 3.5, 9.0, 9.0])) == 3
    # At the same second the number of the worker would decide.
    assert count(nothing, arrivals, np.array([3.0, 9.0, 9.0, 9.0])) == 2


def test_pushes_of_one_second_are_not_torn_apart():
    run = TimingWindows.__new__(TimingWindows)
    run.workers, run._arrivals = 5, np.array([2.0, 3.0, 1.0, 2.0, 2.0])
    # Of those at second 2 only some would be among the next three.
    assert run._next(2).tolist() == [2]
    assert run._next(4).tolist() == [2, 0, 3, 4]
    run._arrivals[:] = 1.0
    assert run._next(2).tolist() == [0, 1, 2, 3, 4]
