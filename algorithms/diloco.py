"""DiLoCo: workers train alone for H steps, and what they have learnt is the gradient of an outer optimizer.

    each worker m, H times:    θ_m ← InnerOpt(θ_m, ∇f_m(θ_m))
    all together:              Δ = (1/M) Σ_m (θ − θ_m)                                  the outer gradient
                               V ← μ V + Δ,    θ ← θ − η_out (Δ + μ V)                  Nesterov momentum
                               θ_m ← θ for every worker

Source: Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023 (arXiv 2311.08105):
InnerOpt is AdamW, OuterOpt is SGD with Nesterov momentum, η_out = 0.7, μ = 0.9, H = 500. The update is second hand:
written down from accounts of the paper, whose numbers of algorithm and lines are therefore not given. Nesterov momentum
is that of `torch.optim.SGD`.

With SGD inside, η_out = 1 and μ = 0 it is Local SGD, to rounding. With one worker, H = 1 and SGD inside it is SGD with
Nesterov momentum at η_out times the learning rate, to rounding while that stays the same.

The schedule's learning rate is InnerOpt's. The states of the inner optimizers stay with their workers. θ is what is
evaluated, so local steps since the last outer one do not show, and those that are left at the end of a run are lost. As
in `LocalSGD`, in an epoch's last step, whose shares may differ by one sample, a gradient counts by its samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.base import Batch, Collective, CommunicationSchedule, Message, Oracle, Step, in_range, integer, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import sgd_step
from algorithms.optimizer import Optimizer, OptimizerOptions


@dataclass(kw_only=True, eq=False)
class DiLoCoOptions(OptimizerOptions):
    """The arguments of DiLoCo and of its asynchronous form; the others are InnerOpt's, those of `OptimizerOptions`.

    Args:
        inner: H ≥ 1, local steps from one outer step to the next.
        outer_lr: η_out ≥ 0.
        outer_momentum: μ in [0, 1).

    Raises:
        ValueError: an argument is out of range.
    """

    # AdamW's.
    usual_rates: ClassVar[tuple[float, ...]] = (3e-3, 3e-2)

    optimizer: str = "adamw"
    weight_decay: float = 0.1
    inner: int = 4
    outer_lr: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.period = int(in_range("inner", integer("inner", self.inner), 1))
        in_range("outer_lr", self.outer_lr, 0)
        in_range("outer_momentum", self.outer_momentum, 0, 1, open_high=True)


@dataclass(kw_only=True, eq=False)
class DiLoCo(DiLoCoOptions, Collective):
    """DiLoCo; the arguments are those of `DiLoCoOptions`."""

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`; θ_m ← θ."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.inner_step = Optimizer(self)
        self.inner_step.start(w)
        self.theta = w.clone()
        self.outer_v = zeros(w.numel(), like=w) if self.outer_momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """Return θ_m, of which the mean makes Δ."""
        return {"x": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Take a step of InnerOpt; contribute θ_m after H of them."""
        # θ_m ← InnerOpt(θ_m, ∇f_m(θ_m))
        g = oracle.gradient(self.w, batch)
        if step.relative_size != 1.0:
            g.mul_(step.relative_size)
        self.inner_step(self.w, g, step.lr)
        return {"x": self.w} if (batch.number + 1) % self.period == 0 else None

    def apply(self, combined: Message, step: Step) -> None:
        """Take the outer step, and go on from there."""
        self.update_blockwise(self.theta, combined["x"], self.outer_v)
        # θ_m ← θ
        self.w.copy_(self.theta)

    def update(self, theta: Tensor, x: Tensor, v: Tensor | None, s: Tensor, q: Tensor) -> None:
        """Take the outer step on a block; `x` is the mean of the θ_m, `s` and `q` are scratch."""
        # Δ = θ − (1/M) Σ_m θ_m
        delta = torch.sub(theta, x, out=s)
        # V ← μ V + Δ, θ ← θ − η_out (Δ + μ V)
        sgd_step(theta, delta, v, q, lr=self.outer_lr, momentum=self.outer_momentum, nesterov=v is not None)

    def solution(self) -> Tensor:
        """Return θ, the same on every worker."""
        return self.theta

    def state(self) -> Message:
        """Return `w`, InnerOpt's tensors, `theta`, and V as `outer_v`."""
        outer = {} if self.outer_v is None else {"outer_v": self.outer_v}
        return {"w": self.w, **self.inner_step.state(), "theta": self.theta, **outer}

    def compared(self) -> dict[str, CommunicationSchedule]:
        """Return mini-batch SGD, and DiLoCo with this H."""
        return {"mini-batch SGD": CommunicationSchedule(1, 0), "DiLoCo": CommunicationSchedule(self.period, 0)}
