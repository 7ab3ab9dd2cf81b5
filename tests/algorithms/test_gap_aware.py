from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.gap_aware import GapAware
from tests.algorithms.driven import N, course, same, start
from tests.trial import equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=16", "run.epochs=2")


class Paper:
    """Gap-Aware in NumPy, of each weight or of the model."""

    def __init__(self, gap: str, momentum: float, nesterov: bool, weight_decay: float) -> None:
        self.w = start().astype(np.float64)
        self.v, self.bak = np.zeros(N), np.zeros((3, N))
        self.gap, self.momentum, self.nesterov, self.weight_decay = gap, momentum, nesterov, weight_decay
        self.squares: list[np.ndarray] = []
        self.eta_max = 0.0

    def pull(self, worker: int, lr: float) -> np.ndarray:
        self.bak[worker] = self.w
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        self.squares.append(np.square(self.v if self.momentum else g))
        # The running mean, weight by weight: .001 · .999^age each, and all of them add up to 1 − .999^t.
        weights = 0.001 * 0.999 ** np.arange(len(self.squares))[::-1]
        usual = np.tensordot(weights / (1 - 0.999 ** len(self.squares)), np.array(self.squares), 1)
        drift = self.w - self.bak[worker]
        self.eta_max = max(self.eta_max, lr)
        if self.gap == "model":
            usual, drift = usual.mean(), np.sqrt(np.square(drift).mean())
        p = 1 + np.abs(drift) / (self.eta_max * (np.sqrt(usual) + 1e-8))
        d = (g + self.weight_decay * self.w) / p
        self.v = self.momentum * self.v + d
        self.w = self.w - lr * (d + self.momentum * self.v if self.nesterov else self.v)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"), [(0.0, False, 0.0), (0.5, False, 0.0), (0.5, True, 0.1)]
)
@pytest.mark.parametrize("gap", ["parameter", "model"])
def test_updates_match_numpy(gap: str, momentum: float, nesterov: bool, weight_decay: float):
    options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    aware, _ = course(GapAware(gap=gap, **options), paper=Paper(gap, **options))
    assert not same(aware, course(ASGD(**options))[0])


@pytest.mark.parametrize("gap", ["parameter", "model"])
def test_one_usual_step_halves_a_gradient(gap: str):
    """Without momentum, gradients of size one and rate 1/2: p is 1, then 2, then 3, for all weights alike."""
    method = GapAware(gap=gap, momentum=0.0)
    method.start(torch.zeros(3), 3)
    for worker in range(3):
        method.pull(worker)
    for worker, after in ((0, -0.5), (1, -0.75), (2, -0.75 - 0.5 / 2.5)):
        method.push(worker, {"g": torch.ones(3)}, Step(lr=0.5, staleness=worker))
        torch.testing.assert_close(method.w, torch.full((3,), after))


@pytest.mark.parametrize("gap", ["parameter", "model"])
def test_one_worker_is_sgd_to_the_bit(gap: str, tmp_path: Path):
    options = ("algorithm.momentum=0.9", "algorithm.nesterov=true", "algorithm.weight_decay=0.01")
    given = ("algorithm=gap_aware", f"algorithm.gap={gap}", "cluster.workers=1", *options)
    one = train(*given, *RUN, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *RUN, *options, folder=tmp_path).weights)


@pytest.mark.parametrize("gap", ["parameter", "model"])
def test_rate_of_zero_leaves_numbers_finite(gap: str):
    """As in the first step of a warm-up."""
    method = GapAware(gap=gap, momentum=0.9)
    method.start(torch.ones(4), 2)
    for lr in (0.0, 0.0, 0.5):
        method.push(0, {"g": torch.zeros(4)}, Step(lr=lr, staleness=1))
    assert torch.equal(method.w, torch.ones(4))
    assert method.state()["eta_max"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": "layer"}, r"algorithm\.gap=layer: unknown; allowed: parameter, model"),
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        GapAware(**options)
