from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.asgd import ASGD
from algorithms.base import Batch, Message, Step
from algorithms.dana import DANADC, DANASlim, DANAZero
from tests.algorithms.driven import VISITS, N, course, rate, same, start, textbook_nag
from tests.trial import equal, train


class Paper:
    """DANA-Zero and -DC in NumPy; the sum over workers is made anew each time."""

    def __init__(self, momentum: float, weight_decay: float = 0.0, lambda0: float = 0.0) -> None:
        self.w = start().astype(np.float64)
        self.v = np.zeros((3, N))
        self.sent = np.zeros((3, N))
        self.momentum, self.weight_decay, self.lambda0 = momentum, weight_decay, lambda0

    def pull(self, worker: int, lr: float) -> np.ndarray:
        self.sent[worker] = self.w - lr * self.momentum * self.v.sum(0)
        return self.sent[worker]

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        d = g + self.lambda0 * g * g * (self.w - self.sent[worker]) + self.weight_decay * self.w
        self.v[worker] = self.momentum * self.v[worker] + d
        self.w = self.w - lr * self.v[worker]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_zero_matches_numpy(momentum: float, weight_decay: float):
    course(DANAZero(momentum=momentum, weight_decay=weight_decay), paper=Paper(momentum, weight_decay))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_compensated_form_matches_numpy(weight_decay: float):
    options: dict[str, Any] = {"momentum": 0.5, "weight_decay": weight_decay, "lambda0": 0.2}
    course(DANADC(**options), paper=Paper(**options))


def test_one_worker_is_textbook_nag_to_the_bit():
    weights, sent = course(DANAZero(), workers=1, visits=[0] * len(VISITS))
    expected, ahead = textbook_nag(0.9)
    assert same(weights, expected)
    assert same(sent, ahead)


def test_sent_weights_take_torch_nesterov_steps():
    """Of one worker, at a constant rate."""
    _, sent = course(DANAZero(), workers=1, visits=[0] * 8)
    random = np.random.default_rng(0)
    w = nn.Parameter(torch.from_numpy(start()))
    optimizer = torch.optim.SGD([w], lr=0.3, momentum=0.9, nesterov=True)
    for expected in sent[1:8]:
        w.grad = 0.5 * w.detach() + torch.from_numpy(random.standard_normal(N).astype(np.float32))
        optimizer.step()
        torch.testing.assert_close(w.detach(), expected, rtol=1e-5, atol=1e-5)
    assert rate(7).lr == 0.3


def test_zero_momentum_is_asgd_to_the_bit():
    asgd = course(ASGD(weight_decay=0.1))
    zero = course(DANAZero(momentum=0.0, weight_decay=0.1))
    assert same(zero[0], asgd[0])
    assert same(zero[1], asgd[1])


def test_lambda_zero_is_the_plain_form_to_the_bit():
    plain = course(DANAZero(weight_decay=0.1))
    assert same(course(DANADC(lambda0=0.0, weight_decay=0.1))[0], plain[0])
    assert not same(course(DANADC(lambda0=0.1, weight_decay=0.1))[0], plain[0])


def test_lost_worker_leaves_the_sum():
    method = DANAZero(momentum=0.5)
    method.start(torch.zeros(2), 3)
    for worker in (0, 1):
        method.push(worker, {"g": torch.tensor([1.0, 2.0]) * (1 + worker)}, Step(lr=1.0))
    assert method.state()["total"].tolist() == [3.0, 6.0]
    method.lost(1)
    assert method.state()["total"].tolist() == [1.0, 2.0]
    method.announce(Step(lr=1.0))
    assert method.pull(2)["w"].tolist() == [-3.5, -7.0]
    # It pulls again after a resume, without a past.
    method.push(1, {"g": torch.ones(2)}, Step(lr=1.0))
    assert method.state()["total"].tolist() == [2.0, 3.0]


class Together(DANASlim):
    """DANA-Slim with its workers: it is pushed gradients."""

    def start(self, w: torch.Tensor, workers: int, compiled: bool = False) -> None:
        super().start(w, workers, compiled)
        self.halves = [self.worker(worker) for worker in range(workers)]
        self.kept = [{"v": torch.zeros_like(w)} for _ in range(workers)]
        for half, state in zip(self.halves, self.kept, strict=True):
            half.keep(state)
        self.pulled: list[Message] = [{}] * workers

    def pull(self, worker: int) -> Message:
        self.pulled[worker] = {"w": super().pull(worker)["w"].clone()}
        return self.pulled[worker]

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        oracle: Any = SimpleNamespace(gradient=lambda w, batch: message["g"].clone())
        pushed = self.halves[worker].work(oracle, self.pulled[worker], Batch(0, 0, torch.arange(1)))
        return super().push(worker, pushed, step)


class SlimPaper(Paper):
    """DANA-Slim in NumPy."""

    def pull(self, worker: int, lr: float) -> np.ndarray:
        self.sent[worker] = self.w
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        d = g + self.weight_decay * self.sent[worker]
        self.v[worker] = self.momentum * self.v[worker] + d
        self.w = self.w - lr * (self.momentum * self.v[worker] + d)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_slim_matches_numpy(weight_decay: float):
    course(Together(momentum=0.5, weight_decay=weight_decay), paper=SlimPaper(0.5, weight_decay))


def test_slim_sends_what_zero_sends():
    """To rounding, while the rate stays the same."""
    visits = VISITS[:7]
    _, zero = course(DANAZero(momentum=0.5), visits=visits)
    _, slim = course(Together(momentum=0.5), visits=visits)
    for ours, theirs in zip(slim, zero, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not same(zero, course(DANAZero(momentum=0.4), visits=visits)[1])


def test_slim_without_momentum_is_asgd_to_the_bit():
    assert same(course(Together(momentum=0.0, weight_decay=0.0))[0], course(ASGD())[0])


def test_one_slim_worker_is_torch_nesterov_to_the_bit(tmp_path: Path):
    size = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=16", "run.epochs=2")
    options = ("algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    one = train("algorithm=dana_slim", "cluster.workers=1", *size, *options, folder=tmp_path)
    assert equal(
        one.weights, train("algorithm=sgd", "algorithm.nesterov=true", *size, *options, folder=tmp_path).weights
    )


@pytest.mark.parametrize("name", ["dana_zero", "dana_dc"])
def test_momentum_moves_what_is_sent_not_what_is_evaluated(name: str, tmp_path: Path):
    size = ("model=mlp", "dataset.limit_train=40", "dataset.limit_test=20", "run.batch_size=8", "run.epochs=1")
    run = train(f"algorithm={name}", *size, "schedule.lr=0.1", folder=tmp_path)
    method: Any = run.executor.server  # type: ignore[attr-defined]
    assert torch.equal(run.executor.weights(), method.w)
    ahead = method.pull(0)["w"]
    torch.testing.assert_close(ahead, method.w - 0.1 * 0.9 * method.v.sum(0))
    assert not torch.equal(ahead, method.w)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"),
        ({"lambda0": -1.0}, r"algorithm\.lambda0=-1\.0: out of range; allowed: lambda0 >= 0"),
        ({"weight_decay": -1.0}, r"algorithm\.weight_decay=-1\.0"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DANADC(**options)
