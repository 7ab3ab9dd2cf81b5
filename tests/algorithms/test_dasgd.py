from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from algorithms.dasgd import DaSGD
from algorithms.local_sgd import LocalSGD
from tests.trial import QuadraticOracle, Trial, equal, train


class Pulling(QuadraticOracle):
    """Worker m's objective is (w − c_m)²/2: the executor asks for one gradient a worker, in the order of the ranks."""

    def __init__(self, start: float, targets: list[float]) -> None:
        super().__init__(start)
        self.targets = targets
        self.asked_weights: list[float] = []

    def gradient(self, w: Tensor, batch: Any) -> Tensor:
        target = self.targets[len(self.asked_weights) % len(self.targets)]
        self.asked_weights.append(float(w))
        return super().gradient(w, batch).sub_(target)


def played(
    *overrides: str,
    steps: int,
    folder: Path,
    targets: tuple[float, ...] = (8.0, -8.0),
    start: float = 16.0,
    **given: Any,
) -> tuple[Trial, np.ndarray]:
    """Train so many steps on scalars; return the trial and every x_k^(m) that a gradient was asked at, and the last."""
    workers = len(targets)
    trial = Trial(
        "model=linear",
        "run.batch_size=1",
        f"dataset.limit_train={steps * workers}",
        "run.epochs=1",
        "algorithm.weight_decay=0",
        "schedule.lr=0.5",
        f"cluster.workers={workers}",
        *overrides,
        folder=folder,
        oracle=Pulling(16.0, list(targets)),
        **given,
    )
    trial.run()
    asked = np.array(trial.components.oracle.asked_weights).reshape(steps, workers)  # type: ignore[attr-defined]
    last = [float(method.solution()) for method in trial.executor.methods]  # type: ignore[attr-defined]
    return trial, np.vstack([asked, last])


def equation_4(x: np.ndarray, targets: np.ndarray, lrs: list[float], *, tau: int, delay: int, xi: float) -> np.ndarray:
    """The paper's eq. 4, letter by letter: x_k^(m) for every k, [steps + 1, M]."""
    xs, gs = [x], []
    for k, lr in enumerate(lrs):
        gs.append(xs[k] - targets)
        stepped = xs[k] - lr * gs[k]
        if (k + 1) % tau == delay and k + 1 >= tau:
            old = xs[k - delay] - lrs[k - delay] * gs[k - delay]
            xs.append(xi * stepped + (1 - xi) * old.mean())
        else:
            xs.append(stepped)
    return np.array(xs)


@pytest.mark.parametrize("xi", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("delay", [0, 1, 2, 3])
@pytest.mark.parametrize("targets", [(8.0, -8.0), (1.0, 2.0, -6.0)])
def test_every_iterate_is_that_of_equation_4(delay: int, xi: float, targets: tuple[float, ...], tmp_path: Path):
    options = ("algorithm=dasgd", "algorithm.tau=4", f"algorithm.delay={delay}", f"algorithm.xi={xi}")
    _, xs = played(*options, steps=18, folder=tmp_path, targets=targets)
    start = np.full(len(targets), 16.0)
    expected = equation_4(start, np.array(targets), [0.5] * 18, tau=4, delay=delay, xi=xi)
    np.testing.assert_allclose(xs, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("delay", "xi", "merged"),
    [
        # Two workers start at 16, one pulled to 8, one to -8, half of the way each step: after four steps they stand at
        # 8.5 and -6.5, whose mean is 1; then 8.25 and -7.25, 8.125 and -7.625, 8.0625 and -7.8125.
        (0, 0.0, (1.0, 1.0)),
        (0, 0.25, (2.875, -0.875)),
        (0, 1.0, (8.5, -6.5)),
        (1, 0.0, (1.0, 1.0)),
        (1, 0.25, (2.8125, -1.0625)),
        (1, 1.0, (8.25, -7.25)),
        (2, 0.0, (1.0, 1.0)),
        (2, 0.25, (2.78125, -1.15625)),
        (2, 1.0, (8.125, -7.625)),
        (3, 0.0, (1.0, 1.0)),
        (3, 0.25, (2.765625, -1.203125)),
        (3, 1.0, (8.0625, -7.8125)),
    ],
)
def test_the_first_merge_by_hand(delay: int, xi: float, merged: tuple[float, float], tmp_path: Path):
    options = ("algorithm=dasgd", "algorithm.tau=4", f"algorithm.delay={delay}", f"algorithm.xi={xi}")
    _, xs = played(*options, steps=4 + delay, folder=tmp_path)
    np.testing.assert_array_equal(xs[:4], [[16, 16], [12, 4], [10, -2], [9, -5]])
    np.testing.assert_array_equal(xs[4 + delay], merged)


def test_nothing_is_merged_before_the_first_average(tmp_path: Path):
    """Eq. 4 has its first case at k + 1 = d already, when there is nothing to average."""
    _, xs = played("algorithm=dasgd", "algorithm.tau=4", "algorithm.delay=2", steps=3, folder=tmp_path)
    np.testing.assert_array_equal(xs, [[16, 16], [12, 4], [10, -2], [9, -5]])


def test_momentum_stays_local(tmp_path: Path):
    options = ("algorithm=dasgd", "algorithm.tau=2", "algorithm.delay=1", "algorithm.xi=0.5", "algorithm.momentum=0.5")
    trial, xs = played(*options, steps=7, folder=tmp_path)
    x, v, targets = np.full(2, 16.0), np.zeros(2), np.array([8.0, -8.0])
    average = np.nan
    for k in range(7):
        v = 0.5 * v + (x - targets)
        x = x - 0.5 * v
        if (k + 1) % 2 == 1 and k > 1:
            x = 0.5 * x + 0.5 * average
        if (k + 1) % 2 == 0:
            average = x.mean()
        np.testing.assert_allclose(xs[k + 1], x, rtol=1e-13)
    velocities = [float(method.state()["v"]) for method in trial.executor.methods]  # type: ignore[attr-defined]
    np.testing.assert_allclose(velocities, v, rtol=1e-13)


RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=3", "run.batch_size=4")


def test_no_delay_is_local_sgd(tmp_path: Path):
    options = (*RUN, "cluster.workers=3", "algorithm.momentum=0.9", "algorithm.nesterov=true", "algorithm.tau=3")
    local = train("algorithm=local_sgd", *options, folder=tmp_path)
    same = train("algorithm=dasgd", "algorithm.delay=0", "algorithm.xi=0", *options, folder=tmp_path)
    late = train("algorithm=dasgd", "algorithm.delay=1", "algorithm.xi=0", *options, folder=tmp_path)
    assert equal(same.weights, local.weights)
    assert same.notes.rows == local.notes.rows
    assert not equal(late.weights, local.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 4, "delay": 4}, r"algorithm\.delay=4: out of range; allowed: 0 <= delay < tau \(algorithm\.tau=4\)"),
        ({"tau": 4, "delay": -1}, r"algorithm\.delay=-1: out of range"),
        ({"tau": 4, "delay": 1.5}, r"algorithm\.delay=1\.5: is not a whole number"),
        ({"xi": 1.01}, r"algorithm\.xi=1\.01: out of range; allowed: 0 <= xi <= 1"),
        ({"xi": -0.1}, r"algorithm\.xi=-0\.1: out of range"),
        ({"xi": float("nan")}, r"algorithm\.xi=nan: out of range"),
        ({"tau": 0, "delay": 0}, r"algorithm\.tau=0: out of range; allowed: tau >= 1"),
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range"),
    ],
)
def test_wrong_values_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DaSGD(**options)


def test_what_is_compared_follows_the_configuration():
    method = DaSGD(tau=8, delay=3)
    assert isinstance(method, LocalSGD)
    assert method.compared() == {"mini-batch SGD": (1, 0), "Local SGD": (8, 0), "DaSGD": (8, 3)}
