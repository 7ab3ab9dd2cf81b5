"""Gap-Aware: asynchronous SGD that divides a gradient by how far the weights have moved since it was asked for.

    pull by worker m:    θ_bak(m) ← θ;  send θ
    push of g by m:      ra ← .999 ra + .001 v ⊙ v,    t ← t + 1
                         C = η_max (sqrt(ra / (1 − .999^t)) + 1e-8)           the size of a usual step
                         p = 1 + |θ − θ_bak(m)| / C                           1 + the gap in such steps
                         v ← γ v + (g + weight decay) / p,    θ ← θ − η v

      parameter   all of this element-wise: each weight has a gap of its own
      model       one gap, RMSE(θ − θ_bak(m)), and one C, with the mean of v ⊙ v in place of v ⊙ v

Source: Barkai, Hakimi, Schuster, "Gap-Aware Mitigation of Gradient Staleness", ICLR 2020 (arXiv 1909.10802). The update
is second hand: written down from accounts of the paper, whose numbers of algorithms and equations are therefore not
given. The running mean of v before the push, its constants, and weight decay inside the quotient are those of a public
implementation by the same group, made for pipelines. The form for the whole model is the paper's idea before it goes to
single weights; its C is the same formula with means.

With one worker the gap is zero, p = 1, and the method is sequential SGD, to the bit.

Without momentum g stands for v in the running mean. η_max is the largest learning rate so far, warm-up included.
`momentum` and `nesterov` are the server's, as in `algorithms.asgd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.asgd import ASGD
from algorithms.base import Message, Step, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import sgd_step

DECAY = 0.999
"""Weight of the past in the running mean of v ⊙ v."""
EPSILON = 1e-8
"""What is added to its root."""


@dataclass(kw_only=True, eq=False)
class GapAware(ASGD):
    """Gap-Aware ASGD; `momentum`, `nesterov` and `weight_decay` are those of `SGDOptions`, on the server.

    Args:
        gap: "parameter" for a gap of each weight, "model" for one of all.

    Raises:
        ValueError: an argument is out of range.
    """

    # No option here: the gap takes the place of the delay.
    staleness: ClassVar[str] = "plain"

    momentum: float = 0.9
    gap: str = "parameter"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("gap", self.gap, ("parameter", "model"))

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; θ_bak(m) ← θ_0 for every worker."""
        super().start(w, workers, compiled)
        rule = self.update if self.gap == "parameter" else self.update_by_one
        self.update_blockwise = BlockwiseUpdate(rule, scratch=2, compiled=compiled)
        self.bak = w.expand(workers, -1).clone()
        # Numbers of the host, in double precision: t in `t`, η_max in `eta_max`, and of one gap ra.
        self.t = torch.zeros(1, dtype=torch.int64)
        self.eta_max = torch.zeros(1, dtype=torch.float64)
        self.ra = zeros(w.numel(), like=w) if self.gap == "parameter" else torch.zeros(1, dtype=torch.float64)

    def pull(self, worker: int) -> Message:
        """Keep θ_bak(m) ← θ, and send θ."""
        self.bak[worker].copy_(self.w)
        return {"w": self.bak[worker]}

    def sent(self, worker: int) -> Message:
        """Return θ_bak(m)."""
        return {"w": self.bak[worker]}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take one step along the gradient, divided by p."""
        self.t += 1
        self.eta_max.clamp_(min=step.lr)
        # At a rate of zero so far nothing has moved, and p = 1 whatever C is.
        eta_max = self.eta_max.item() or 1.0
        unbiased = 1 / (1 - DECAY ** self.t.item())
        w, g, bak, v = self.w, message["g"], self.bak[worker], self.v
        if self.gap == "parameter":
            self.update_blockwise(w, g, bak, v, self.ra, lr=step.lr, eta_max=eta_max, unbiased=unbiased)
            return
        # ra ← .999 ra + .001 mean(v ⊙ v)
        self.ra.mul_(DECAY).add_((1 - DECAY) * _mean_square(g if v is None else v))
        # C = η_max (sqrt(ra / (1 − .999^t)) + 1e-8)
        c = eta_max * ((self.ra.item() * unbiased) ** 0.5 + EPSILON)
        # p = 1 + RMSE(θ − θ_bak(m)) / C
        p = 1 + _mean_square(w - bak) ** 0.5 / c
        self.update_blockwise(w, g, v, lr=step.lr, p=p)

    def update(
        self,
        w: Tensor,
        g: Tensor,
        bak: Tensor,
        v: Tensor | None,
        ra: Tensor,
        s: Tensor,
        q: Tensor,
        *,
        lr: float,
        eta_max: float,
        unbiased: float,
    ) -> None:
        """Apply one pushed gradient to a block, each weight with its own gap."""
        # ra ← .999 ra + .001 v ⊙ v
        usual = g if v is None else v
        ra.lerp_(torch.mul(usual, usual, out=q), 1 - DECAY)
        # q = C = η_max (sqrt(ra / (1 − .999^t)) + 1e-8)
        torch.mul(ra, unbiased, out=q).sqrt_().add_(EPSILON).mul_(eta_max)
        # s = p = 1 + |θ − θ_bak(m)| / C
        torch.sub(w, bak, out=s).abs_().div_(q).add_(1)
        # d = (g + weight decay) / p
        d = torch.add(g, w, alpha=self.weight_decay, out=q).div_(s) if self.weight_decay else torch.div(g, s, out=q)
        # v ← γ v + d, θ ← θ − η v
        sgd_step(w, d, v, s, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def update_by_one(
        self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, q: Tensor, *, lr: float, p: float
    ) -> None:
        """Apply one pushed gradient to a block, all weights with the gap of the model."""
        # d = (g + weight decay) / p
        d = torch.add(g, w, alpha=self.weight_decay, out=s).div_(p) if self.weight_decay else torch.div(g, p, out=s)
        # v ← γ v + d, θ ← θ − η v
        sgd_step(w, d, v, q, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """Return ASGD's tensors, the backups `bak` (workers, n), `ra` (n or 1,), `t` and `eta_max`."""
        return super().state() | {"bak": self.bak, "ra": self.ra, "t": self.t, "eta_max": self.eta_max}


def _mean_square(vector: Tensor) -> float:
    """Return the mean of the squares of a vector's elements."""
    return torch.linalg.vector_norm(vector, dtype=torch.float64).item() ** 2 / vector.numel()
