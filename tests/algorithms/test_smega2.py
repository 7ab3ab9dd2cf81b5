import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.smega2 import SMEGA2
from tests.algorithms.driven import VISITS, N, course, same, start, textbook_nag


class Paper:
    """SMEGA2 in NumPy. What is sent is found by walking N steps with the gradients that there are, spread evenly."""

    def __init__(self, momentum: float, weight_decay: float) -> None:
        self.w = start().astype(np.float64)
        self.m = np.zeros(N)
        self.gradients: list[np.ndarray] = []
        self.momentum, self.weight_decay = momentum, weight_decay

    def pull(self, worker: int, lr: float) -> np.ndarray:
        w, c, gamma = self.w.copy(), len(self.gradients), self.momentum
        after = gamma * self.m + sum(self.gradients, np.zeros(N)) / 3
        # N steps along the momentum: N − c of them before it changes, and c after.
        for step in range(3):
            w -= lr * gamma * (self.m if step < 3 - c else after)
        return w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        d = g + self.weight_decay * self.w
        self.gradients.append(d)
        self.w = self.w - lr * (d + self.momentum * self.m)
        if len(self.gradients) == 3:
            self.m = self.momentum * self.m + np.mean(self.gradients, axis=0)
            self.gradients = []


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_updates_match_numpy(momentum: float, weight_decay: float):
    course(SMEGA2(momentum=momentum, weight_decay=weight_decay), paper=Paper(momentum, weight_decay))


def test_one_worker_is_textbook_nag():
    """To rounding: the velocity's two parts are added to the weights in another order."""
    weights, sent = course(SMEGA2(), workers=1, visits=[0] * len(VISITS))
    expected, ahead = textbook_nag(0.9)
    for ours, theirs in zip((*weights, *sent), (*expected, *ahead), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_zero_momentum_is_asgd_to_the_bit():
    asgd = course(ASGD(weight_decay=0.1))
    zero = course(SMEGA2(momentum=0.0, weight_decay=0.1))
    assert same(zero[0], asgd[0])
    assert same(zero[1], asgd[1])


def test_momentum_changes_with_the_last_gradient():
    method = SMEGA2(momentum=0.5)
    method.start(torch.zeros(1), 2)
    momenta = []
    for g in (2.0, 4.0, 6.0, 8.0):
        method.push(0, {"g": torch.tensor([g])}, Step(lr=0.0))
        momenta.append(float(method.m))
    # (2 + 4) / 2, then 3 / 2 + (6 + 8) / 2
    assert momenta == [0.0, 3.0, 3.0, 8.5]
    assert method.state()["c"].tolist() == [0]


def test_wrong_momentum_is_refused():
    with pytest.raises(ValueError, match=r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"):
        SMEGA2(momentum=1.0)
