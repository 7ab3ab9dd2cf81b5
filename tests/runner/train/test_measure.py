import re

import pytest

from runner.train import measure, timing
from runner.train.build import build_run
from tests.trial import compose

BOTH = [[0, 1], [0, 1]]
"""Two processes, each of which combines with both."""


def test_step_is_timed_on_one_share(monkeypatch: pytest.MonkeyPatch):
    """On a worker's samples of a step, not on all workers', and the median counts."""
    run = build_run(
        compose("algorithm=ssgd", "model=linear", "dataset.limit_train=60", "run.batch_size=5", "cluster.workers=3")
    )
    sizes = []
    local = type(run.method).local

    def noted(self, oracle, batch, step):
        sizes.append(len(batch.ids))
        assert step.lr == 0
        return local(self, oracle, batch, step)

    monkeypatch.setattr(type(run.method), "local", noted)
    ticks = iter([0, 50, 0, 50, *(tick for k in (1, 2, 3, 4, 5, 6, 100) for tick in (0, k))])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))
    assert measure.step_seconds(run) == 4
    assert sizes == [5] * (timing.TIMED + timing.UNTIMED)


@pytest.mark.slow
def test_larger_vectors_take_longer():
    small, large = (measure.combination_seconds(n, BOTH, "mean", 20.0) for n in (10, 4_000_000))
    assert 0 < small < large


def test_processes_that_fail_are_named(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError, match=re.escape("2 processes could not combine -1 elements")):
        measure.combination_seconds(-1, BOTH, "mean", 5.0)
