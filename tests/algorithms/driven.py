"""A parameter server's half, driven through a short schedule by hand: gradients that depend on what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from algorithms.base import ParameterServer, Step
from algorithms.blockwise import BLOCK

N = BLOCK + 13
"""One block and a tail."""
WORKERS = 3
VISITS = (0, 2, 1, 0, 0, 2, 1, 1, 0, 2, 2, 2, 2, 1, 0)
"""Who pushes; each pulls right after. Delays are 0 to 7."""


def rate(number: int) -> Step:
    """The schedule's values of push `number`: the rate falls on the way."""
    return Step(lr=0.3) if number < 8 else Step(lr=0.03, decay=0.1)


class Paper(Protocol):
    """A method in NumPy and float64, straight from its equations."""

    w: np.ndarray

    def pull(self, worker: int, lr: float) -> np.ndarray: ...

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None: ...


def start() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(N).astype(np.float32)


def course(
    method: ParameterServer, *, workers: int = WORKERS, visits: Sequence[int] = VISITS, paper: Paper | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Let workers pull and push; return the weights after each push, and what was sent, in order.

    With `paper`, which starts from the same weights, both are held against it after every message; the method then is
    in double precision too, so that equations are compared and not roundings.
    """
    random = np.random.default_rng(0)
    dtype = torch.float32 if paper is None else torch.float64
    method.start(torch.from_numpy(start()).to(dtype), workers)
    applied, weights, sent = 0, list[Tensor](), list[Tensor]()
    at, held = [0] * workers, [torch.empty(0)] * workers

    def pull(worker: int, step: Step) -> None:
        method.announce(step)
        held[worker] = method.pull(worker)["w"].clone()
        at[worker] = applied
        sent.append(held[worker])
        if paper is not None:
            np.testing.assert_allclose(held[worker], paper.pull(worker, step.lr), rtol=1e-9, atol=1e-9)

    for worker in range(workers):
        pull(worker, rate(0))
    for number, worker in enumerate(visits):
        # The minimum is not at zero, and no two batches are alike.
        g = 0.5 * held[worker] + torch.from_numpy(random.standard_normal(N).astype(np.float32))
        pushed, tau = g.clone(), applied - at[worker]
        kept = method.sent(worker)
        assert kept is None or torch.equal(kept["w"], held[worker]), "what was sent stays as it was"
        answer = method.push(worker, {"g": pushed}, rate(number)._replace(staleness=tau))
        assert torch.equal(pushed, g), "a pushed gradient is left as it is"
        applied += answer is not False
        weights.append(method.w.clone())
        if paper is not None:
            paper.push(worker, g.numpy(), rate(number).lr, tau)
            np.testing.assert_allclose(method.w, paper.w, rtol=1e-9, atol=1e-9)
        pull(worker, rate(number + 1))
    assert not torch.equal(weights[0], weights[-1])
    return weights, sent


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors are equal to the bit."""
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def textbook_nag(
    momentum: float, pushes: int = len(VISITS), weight_decay: float = 0.0
) -> tuple[list[Tensor], list[Tensor]]:
    """Nesterov's accelerated gradient, one worker: v ← γ v + g(θ − η γ v), θ ← θ − η v; θ, and where g is taken."""
    random = np.random.default_rng(0)
    w, v = torch.from_numpy(start()), torch.zeros(N)
    weights, ahead = list[Tensor](), [w.clone()]
    for number in range(pushes):
        g = 0.5 * ahead[-1] + torch.from_numpy(random.standard_normal(N).astype(np.float32))
        v = momentum * v + (g + weight_decay * w if weight_decay else g)
        w = w.add(v, alpha=-rate(number).lr)
        weights.append(w)
        ahead.append(w.add(v, alpha=-rate(number + 1).lr * momentum))
    return weights, ahead
