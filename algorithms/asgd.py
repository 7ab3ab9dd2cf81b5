"""Asynchronous SGD on a parameter server.

    pull by worker m:    send w_t
    push of g_m:         w_{t+τ+1} = w_{t+τ} − η g_m(w_t)                                    (eq. 3)

Source: Zheng et al., "Asynchronous Stochastic Gradient Descent with Delay Compensation", ICML 2017, section 2; the
staleness-aware learning rate η/max(1, τ) is that of Zhang et al., "Staleness-aware Async-SGD", IJCAI 2016.

Beyond the papers' plain form: heavy-ball or Nesterov momentum on the server (the ICML paper's footnote 10 mentions
momentum variants without giving them), and weight decay, which the server adds at its current weights.
With one worker this is sequential SGD, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.base import Batch, Layout, Message, Oracle, ParameterServer, Step, Worker, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import SGDOptions, sgd_step


class GradientWorker(Worker):
    """Algorithm 1 of the ICML paper: pull w_t, compute g_m = ∇f_m(w_t), push g_m."""

    interchangeable = True

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Return the gradient at the pulled weights."""
        return {"g": oracle.gradient(pulled["w"], batch)}


@dataclass(kw_only=True, eq=False)
class ASGD(SGDOptions, ParameterServer):
    """Asynchronous SGD; `momentum`, `nesterov` and `weight_decay` are those of `SGDOptions`, on the server.

    Args:
        staleness: "plain", or "aware" to divide η by max(1, τ), τ the staleness of the push in updates.

    Raises:
        ValueError: an argument is out of range.
    """

    staleness: str = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("staleness", self.staleness, ("plain", "aware"))

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`."""
        self.w = w
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def layout(self, n: int) -> Layout:
        """Return the weights down, the gradient up."""
        return Layout(pull={"w": n}, push={"g": n})

    def pull(self, worker: int) -> Message:
        """Send w_t."""
        return {"w": self.w}

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        """Take one step along the pushed gradient."""
        self.update_blockwise(self.w, message["g"], self.v, lr=self.rate(step))

    def rate(self, step: Step) -> float:
        """Return η of a push."""
        return step.lr / max(1, step.staleness) if self.staleness == "aware" else step.lr

    def update(self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, q: Tensor, *, lr: float) -> None:
        """Apply one pushed gradient to a block; `s` and `q` are scratch, `g` is left as it is."""
        d = torch.add(g, w, alpha=self.weight_decay, out=s) if self.weight_decay else g
        # eq. 3: w ← w − η d, by way of the velocity v where there is momentum
        sgd_step(w, d, v, q, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def worker(self, worker: int) -> Worker:
        """See `GradientWorker`."""
        return GradientWorker()

    def state(self) -> Message:
        """Return `w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})


@dataclass(kw_only=True, eq=False)
class OwnMomentumASGD(ASGD):
    """The part of ASGD that methods with a momentum of their own share: its messages, without its forms of momentum.

    Raises:
        ValueError: an argument is out of range.
    """

    # No options here: what a push does with the momentum, and with its delay, is what such a method is about.
    staleness: ClassVar[str] = "plain"
    nesterov: ClassVar[bool] = False

    momentum: float = 0.9

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; without ASGD's velocity."""
        self.w = w
        self.workers = workers
        self.v = None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)
