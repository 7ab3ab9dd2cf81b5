"""The clock alone beside real simulated runs of the same configuration: the same seconds, to the bit."""

from pathlib import Path
from typing import Any

import pytest

from runner.train import build
from runner.train.executors import topology_of
from runner.train.timing_only import _advance
from tests.trial import Trial, compose

UNEVEN = (
    *("cluster.network.latency=0.01", "cluster.network.bandwidth=5e5", "cluster.network.server_seconds=0.02"),
    *("cluster.stragglers.probability=0.2", "cluster.compute.distribution=gamma", "seed=3"),
)
"""A cluster in which everything takes time, and no two workers are alike."""
TINY = ("dataset.limit_train=120", "dataset.limit_test=20", "model=mlp", "run.batch_size=7", "run.epochs=2.5")
CONVEX = (
    *(
        "model=ridge",
        "dataset=synthetic",
        "dataset.shape=[6]",
        "dataset.classes=2",
        "dataset.train=90",
        "dataset.test=9",
    ),
    *("run.batch_size=4", "run.epochs=2", "schedule.lr=0.0001"),
)


class Rows:
    """A writer that keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def progress(self, **live: Any) -> None:
        pass


def clock_alone(*overrides: str) -> tuple[Any, list[dict[str, Any]]]:
    components = build.build_run(compose(*overrides, "run.timing_only=true"))
    run, writer = topology_of(type(components.method)).time(components), Rows()
    _advance(run, components.cfg.run.eval_every, writer, False)
    return run, writer.rows


def clock_of(executor: Any) -> Any:
    return executor.events if hasattr(executor, "events") else executor.times


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=dc_asgd_a", *TINY),
        ("algorithm=asysvrg", "model=logistic", *CONVEX[1:]),
        ("algorithm=dasgd", "algorithm.tau=3", "algorithm.delay=2", *TINY),
        ("algorithm=dc_ssgd", *TINY),
        ("algorithm=cocoa_plus", *CONVEX),
        ("algorithm=dis_dfsdca", "algorithm.inner=10", *CONVEX),
        ("algorithm=shared_asysvrg", "model=logistic", *CONVEX[1:]),
        ("algorithm=hogwild", *TINY),
        ("algorithm=ddg", "cluster.workers=3", *TINY, "model=fcn5"),
        ("algorithm=dni", "cluster.workers=2", *TINY),
    ],
    ids=lambda overrides: overrides[0].removeprefix("algorithm="),
)
def test_clock_alone_is_that_of_the_run(tmp_path: Path, overrides: tuple[str, ...]):
    trial = Trial(*overrides, *UNEVEN, "run.eval_every=0.4", folder=tmp_path).run()
    timed, rows = clock_alone(*overrides, *UNEVEN, "run.eval_every=0.4")
    control, seconds = trial.control, trial.control.seconds
    assert (timed.seconds, timed.updates, timed.samples_seen) == (seconds, control.updates, control.samples_seen)
    assert timed.nbytes == clock_of(trial.executor).nbytes > 0
    own, real = timed.timeline.report(seconds), trial.executor.timeline.report(seconds)
    assert own.pop("timeline_lines") == 0 < real.pop("timeline_lines")
    assert own == real
    assert timed.timeline.slowest(seconds) == trial.executor.timeline.slowest(seconds)
    # All that a real row has and the clock knows, at every evaluation.
    assert len(rows) == len(trial.notes.rows)
    for row, expected in zip(rows, trial.notes.rows, strict=True):
        common = {key for key in expected if row.get(key) is not None}
        assert len(common) >= 6
        assert {key: row[key] for key in common} == {key: expected[key] for key in common}
