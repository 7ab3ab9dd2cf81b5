from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.async_diloco import AsyncDiLoCo
from runner.config.errors import InputError
from tests.algorithms.driven import N, course, start
from tests.trial import QuadraticOracle, Trial, equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "run.batch_size=8")
QUADRATIC = ("model=linear", "run.batch_size=1", "schedule.lr=0.5", "dataset.limit_train=7", "run.epochs=1")


class Paper:
    """The server's half in NumPy, with the pseudo-gradients of a period in a list."""

    def __init__(self, every: int, momentum: float) -> None:
        self.w, self.m = start().astype(np.float64), np.zeros(N)
        self.every, self.momentum = every, momentum
        self.pushed: list[np.ndarray] = []

    def pull(self, worker: int, lr: float) -> np.ndarray:
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        self.pushed.append(g)
        step = g / self.every
        if len(self.pushed) == self.every:
            self.m = self.momentum * self.m + np.mean(self.pushed, axis=0)
            step = step + self.momentum * self.m
            self.pushed = []
        self.w = self.w - 0.7 * step


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("every", [None, 1, 4])
def test_pushes_match_numpy(every: int | None, momentum: float):
    course(AsyncDiLoCo(every=every, outer_momentum=momentum), paper=Paper(every or 3, momentum))


@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_one_worker_is_diloco_to_the_bit(optimizer: str, inner: int, tmp_path: Path):
    """Nesterov's momentum on what the local steps changed, at a constant rate."""
    momentum = ("algorithm.momentum=0.5", "algorithm.weight_decay=0.01") if optimizer == "sgd" else ()
    given = (*RUN, "schedule.lr=0.02", f"algorithm.inner={inner}", f"algorithm.optimizer={optimizer}", *momentum)
    alone = train("algorithm=async_diloco", "cluster.workers=1", *given, folder=tmp_path)
    assert equal(alone.weights, train("algorithm=diloco", "cluster.workers=1", *given, folder=tmp_path).weights)
    assert alone.control.updates == 18 / inner


def test_one_plain_step_is_asgd(tmp_path: Path):
    """To rounding: the step is taken before its change is."""
    given = (*RUN, "cluster.workers=3", "schedule.lr=0.1", "algorithm.weight_decay=0")
    plain = ("algorithm.optimizer=sgd", "algorithm.inner=1", "algorithm.outer_lr=3", "algorithm.outer_momentum=0")
    one = train("algorithm=async_diloco", *given, *plain, folder=tmp_path)
    expected = train("algorithm=asgd", *given, folder=tmp_path).weights
    for name, value in one.weights.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def test_two_workers_worked_out_by_hand(tmp_path: Path):
    """On w²/2 from 64 with η = 1/2, H = 2, N = 2, ε = 1, β = 1/2, seven batches; gradients take 1 and 2 seconds.

    Second 2: worker 0 came from 64 to 16, g = 48; θ = 64 − 24 = 40, from which it starts again.
    Second 4: worker 0 came to 10, g = 30; Δ = 78, m = 39, θ = 40 − 15 − 19.5 = 5.5, from which it takes the last batch.
              worker 1 came from 64 to 16, g = 48; θ = 5.5 − 24 = −18.5.
    Second 5: worker 0 came to 2.75, g = 2.75; Δ = 50.75, m = 19.5 + 25.375, θ = −18.5 − 1.375 − 22.4375.
    """
    clock = ("cluster.compute.distribution=constant", "cluster.compute.seconds=2", "cluster.compute.speeds=[2,1]")
    options = {"inner": 2, "outer_lr": 1, "outer_momentum": 0.5, "optimizer": "sgd", "weight_decay": 0}
    given = ("algorithm=async_diloco", *(f"algorithm.{name}={value}" for name, value in options.items()))
    trial = Trial(*QUADRATIC, *clock, "cluster.workers=2", *given, folder=tmp_path, oracle=QuadraticOracle(64.0))
    found = list[tuple[float, float]]()
    trial.notes.on_update = lambda: found.append((trial.control.seconds, float(trial.executor.weights())))
    trial.run()
    assert found == [(2.0, 40.0), (4.0, 5.5), (4.0, -18.5), (5.0, -42.3125)]
    assert trial.control.epoch == 1.0


def test_dynamic_local_updates_go_by_the_speeds(tmp_path: Path):
    """Workers whose steps go by their speeds push side by side; without, fast ones push oftener."""
    assert [AsyncDiLoCo(inner=4, speeds=[1, 2, 4]).steps(worker) for worker in range(3)] == [1, 2, 4]
    assert [AsyncDiLoCo(inner=5, speeds=[0.1, 3, 2]).steps(worker) for worker in range(3)] == [1, 5, 3]
    assert AsyncDiLoCo(inner=100, speeds=[0.29, 1]).steps(0) == 29, "100 * 0.29 is below 29 in floating point"
    speeds = ("cluster.compute.distribution=constant", "cluster.compute.speeds=[1,2,4]", "cluster.workers=3")
    given = ("algorithm=async_diloco", "algorithm.inner=4", "dataset.limit_train=210", *RUN[:1], *RUN[2:], *speeds)
    pushes = list[list[int]]()
    for more in ("algorithm.speeds=[1,2,4]", "algorithm.speeds=${cluster.compute.speeds}", "algorithm.speeds=null"):
        trial = Trial(*given, "run.batch_size=10", more, folder=tmp_path)
        server: Any = trial.executor
        counts, original = [0, 0, 0], server.server.push

        def push(worker: int, message: Any, step: Any, counts: Any = counts, original: Any = original) -> None:
            counts[worker] += 1
            original(worker, message, step)

        server.server.push = push
        assert trial.run().control.epoch == 2
        pushes.append(counts)
    assert pushes == [[6, 6, 6], [6, 6, 6], [2, 3, 6]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, r"algorithm\.every=0: out of range; allowed: every >= 1"),
        ({"inner": 0}, r"algorithm\.inner=0: out of range; allowed: inner >= 1"),
        ({"speeds": [1, 0]}, r"algorithm\.speeds=0: such a worker takes no steps; allowed: speeds > 0"),
        ({"speeds": [1, -1]}, r"algorithm\.speeds=-1: such a worker takes no steps; allowed: speeds > 0"),
        ({"speeds": 3}, r"algorithm\.speeds=3: is not a list; allowed: a number for each worker, or null"),
        ({"speeds": "12"}, r"algorithm\.speeds=12: is not a list"),
        ({"speeds": {0: 1}}, r"algorithm\.speeds=\{0: 1\}: is not a list"),
        ({"outer_momentum": 1.0}, r"algorithm\.outer_momentum=1\.0: out of range"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        AsyncDiLoCo(**options)


def test_speeds_of_other_workers_are_refused(tmp_path: Path):
    what = r"algorithm\.speeds=\[1, 2\]: is of 2 workers, and cluster\.workers=3; allowed: a number for each, or null"
    with pytest.raises(InputError, match=what):
        Trial("algorithm=async_diloco", "algorithm.speeds=[1,2]", "cluster.workers=3", *RUN, folder=tmp_path)
