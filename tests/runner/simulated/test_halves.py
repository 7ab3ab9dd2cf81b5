"""Simulated workers whose gradients compute processes compute: whatever the clock says, the bits are those of one."""

import heapq
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.run_folder.trace import LOST, RESUMED
from runner.simulated.events import ClockEvents, Event
from runner.train import executors
from tests.compute import use_threads
from tests.trial import equal, train

SMALL = ("model=mlp", "dataset.limit_train=64", "dataset.limit_test=20", "run.batch_size=8", "cluster.workers=3")

METHODS = st.sampled_from(
    ["asgd", "dc_asgd_a", "dana_slim", "eamsgd", "dc_ssgd", "ssgd", "local_sgd", "dasgd", "hogwild", "asysvrg", "ddg"]
)
CLOCKS = st.fixed_dictionaries(
    {
        "cluster.compute.distribution": st.sampled_from(["constant", "uniform", "lognormal", "gamma"]),
        "cluster.stragglers.probability": st.sampled_from([0.0, 0.3]),
        "cluster.network.latency": st.sampled_from([0.0, 0.2, 3.0]),
        "cluster.network.bandwidth": st.sampled_from(["null", "1000", "100000"]),
        "cluster.network.server_seconds": st.sampled_from([0.0, 0.1]),
        "seed": st.integers(0, 1000),
    }
)
"""What decides when a worker is done: with a slow network or stragglers in quite another order than their numbers."""


def check_clock(algorithm: str, workers: int, count: int, clock: dict[str, object]) -> None:
    """Check that a run has the bits, the times and the metrics of one process."""
    overrides = [f"{key}={value}" for key, value in clock.items()]
    overrides += [f"algorithm={algorithm}", *SMALL[:-1], "model.widths=[16,16,16]", f"cluster.workers={workers}"]
    overrides += ["run.epochs=2", *(["algorithm.inner=6"] if algorithm == "asysvrg" else [])]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        use_threads(patch)
        expected = train(*overrides, folder=Path(name))
        run = train(*overrides, f"run.compute_processes={min(count, workers)}", folder=Path(name))
    assert run.sha256 == expected.sha256
    assert equal(run.state, expected.state)
    assert run.notes.rows == expected.notes.rows


@settings(max_examples=5, deadline=None, derandomize=True)
@given(METHODS, st.integers(2, 4), st.integers(2, 4), CLOCKS)
def test_any_clock_has_the_bits_of_one(algorithm: str, workers: int, count: int, clock: dict[str, object]):
    check_clock(algorithm, workers, count, clock)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(METHODS, st.integers(2, 4), st.integers(2, 4), CLOCKS)
def test_many_clocks_have_the_bits_of_one(algorithm: str, workers: int, count: int, clock: dict[str, object]):
    check_clock(algorithm, workers, count, clock)


class Faults(ClockEvents):
    """Loses worker 1 after five events, and lets all begin anew after ten, as the trace of a resumed run may say."""

    count = 0

    def next(self) -> Event:
        self.count += 1
        now = max(0.0, self.free)
        if self.count == 6:
            self.heap = [item for item in self.heap if item[1] != 1]
            heapq.heapify(self.heap)
            return Event(LOST, 1, now)
        if self.count == 11:
            self.heap.clear()
            return Event(RESUMED, -1, now)
        return super().next()


class Lost(Faults):
    """A clock on which worker 1 is lost and does not come back."""

    def next(self) -> Event:
        self.count += self.count == 10
        return super().next()


def test_what_a_lost_worker_kept_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(executors, "ClockEvents", Lost)
    overrides = ("algorithm=dana_slim", "model=linear", "run.batch_size=4", "run.epochs=2", "cluster.workers=3")
    executor: Any = train(*overrides, "dataset.limit_train=64", "dataset.limit_test=20", folder=tmp_path).executor
    assert executor.workers_lost == 1
    assert [bool(kept["v"].any()) for kept in executor.states] == [True, False, True]


@pytest.mark.parametrize("algorithm", ["dc_asgd_a", "dana_slim", "asysvrg", "dis_dfsdca"])
def test_lost_and_renewed_workers_compute_alike(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is in flight is dropped, halves with a state get new ones, and the shards of a lost worker go to another."""
    use_threads(monkeypatch)
    monkeypatch.setattr(executors, "ClockEvents", Faults)
    overrides = (f"algorithm={algorithm}", "run.batch_size=4", "run.epochs=3", "cluster.workers=3")
    if algorithm == "dis_dfsdca":
        overrides += ("model=ridge", "dataset=synthetic", "dataset.classes=2", "dataset.shape=[12]")
        overrides += ("dataset.noise=0.5", "dataset.train=64", "dataset.test=20", "schedule.lr=0.001")
    else:
        overrides += ("model=mlp", "dataset.limit_train=64", "dataset.limit_test=20")
    if algorithm == "asysvrg":
        overrides += ("algorithm.inner=20",)
    expected = train(*overrides, folder=tmp_path)
    assert expected.executor.workers_lost == 1
    for count in (2, 3):
        run = train(*overrides, f"run.compute_processes={count}", folder=tmp_path)
        assert run.sha256 == expected.sha256
        assert equal(run.state, expected.state)
        assert run.notes.rows == expected.notes.rows
