import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.ormo import OrMo
from tests.algorithms.driven import N, course, same, start


class Paper:
    """OrMo's sums over all gradients so far, made anew for every push, in NumPy.

    A gradient of group a counts β^b in the momentum of group a + b, and 1 + β + … + β^b in the weights.
    """

    def __init__(self, beta: float, weight_decay: float = 0.0) -> None:
        self.first = self.w = start().astype(np.float64)
        self.beta, self.weight_decay = beta, weight_decay
        self.pushed: list[tuple[int, np.ndarray]] = []

    def pull(self, worker: int, lr: float) -> np.ndarray:
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        t = len(self.pushed)
        # At the momentum step that the push begins with, if it begins with one, decay sees the weights after it.
        w = self.solution(t) if self.pushed else self.w
        group = 0 if t == tau else 1 + (t - tau - 1) // 3
        self.pushed.append((group, lr * (g + self.weight_decay * w)))
        self.w = self.solution(t)

    def solution(self, t: int) -> np.ndarray:
        """The weights while push t is handled."""
        return self.first - sum(
            sum(self.beta**j for j in range(t // 3 - group + 1)) * step for group, step in self.pushed
        )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_match_closed_sums(weight_decay: float):
    course(OrMo(momentum=0.5, weight_decay=weight_decay), paper=Paper(0.5, weight_decay))


def test_a_fast_worker_is_ahead_of_its_group():
    """One worker of three alone: gradients of iterates 1 and 2 come before group 1 begins, and wait for it."""
    course(OrMo(momentum=0.5), paper=Paper(0.5), visits=[0] * 9)
    method = OrMo(momentum=0.5)
    method.start(torch.zeros(1), 3)
    weights = []
    for g in (1.0, 2.0, 4.0, 0.0):
        method.push(0, {"g": torch.tensor([g])}, Step(lr=1.0))
        weights.append(float(method.w))
    # The third momentum step takes 2 and 4 along in full, and half of 1.
    assert weights == [-1.0, -1.0, -1.0, -1.0 - 2.0 - 4.0 - 0.5]


def test_groups_in_order_are_heavy_ball_sgd():
    """Three gradients of one iterate after the other: a step with momentum on their sum."""
    random = np.random.default_rng(0)
    method, w, u = OrMo(momentum=0.9), start().astype(np.float64), np.zeros(N)
    method.start(torch.from_numpy(start()), 3)
    for _ in range(5):
        gradients = random.standard_normal((3, N)).astype(np.float32)
        for late, g in enumerate(gradients):
            method.push(late, {"g": torch.from_numpy(g)}, Step(lr=0.1, staleness=late))
        u = 0.9 * u + 0.1 * gradients.sum(0)
        w = w - u
        np.testing.assert_allclose(method.w, w, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(method.u, u, rtol=1e-5, atol=1e-5)


def test_figure_of_four_workers():
    """The momentum u_10 with K=4 and no delays: β² of the first four gradients, β of the next, and two of the third."""
    method = OrMo(momentum=0.5)
    method.start(torch.zeros(10), 4)
    for t in range(10):
        method.push(t % 4, {"g": torch.eye(10)[t]}, Step(lr=1.0, staleness=t % 4))
    assert method.u.tolist() == [0.25] * 4 + [0.5] * 4 + [1.0] * 2


def test_one_worker_is_heavy_ball_sgd():
    one, _ = course(OrMo(momentum=0.9), workers=1, visits=[0] * 6)
    sgd, _ = course(ASGD(momentum=0.9), workers=1, visits=[0] * 6)
    for ours, theirs in zip(one, sgd, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_zero_momentum_is_asgd_to_the_bit():
    assert same(course(OrMo(momentum=0.0, weight_decay=0.1))[0], course(ASGD(weight_decay=0.1))[0])


def test_wrong_momentum_is_refused():
    with pytest.raises(ValueError, match=r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"):
        OrMo(momentum=1.0)
