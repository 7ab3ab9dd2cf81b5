"""OrMo: asynchronous SGD with one momentum, in which each gradient has the weight that its iteration would have.

    push number t (from 0) of a gradient g of iterate k, that is of w after k pushes, K workers:
        if K divides t:   w ← w − β u,    u ← β u
        b = ⌊t/K⌋ − ⌈k/K⌉                     how many momentum steps g is late
        u ← u + β^b η g
        w ← w − (1 + β + … + β^b) η g = w − (1 − β^{b+1}) / (1 − β) η g

The gradients of w_0 make group 0, those of w_1 … w_K group 1, and so on, K in each: a gradient enters the momentum as
if all those of its group had come together, and w makes good the steps along it that it has missed. One that comes
before its group's turn (b = −1) waits in u: w moves along it at the next momentum step.

Source: Shi, Yang, Li, "Ordered Momentum for Asynchronous SGD", NeurIPS 2024 (arXiv 2407.19234). The update is second
hand: written down from accounts of the paper and from its figure of the momentum with four workers, with the exponents
that make both sums above agree; the paper's numbers of algorithms and equations are therefore not given. Its variant
with a delay-adaptive rate is not here.

If K gradients of one iterate come after the other, each K of them are a step of SGD with heavy-ball momentum on their
sum, to rounding; so is each push of one worker. η is inside u, as in the paper, so with a learning rate that falls u
keeps the rates of its gradients. β=0 is ASGD, to the bit.

Deviations: weight decay, which the accounts do not place, is part of g, at the server's current w. K stays what it was
when workers are lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.asgd import OwnMomentumASGD
from algorithms.base import Message, Step, zeros
from algorithms.blockwise import BlockwiseUpdate


@dataclass(kw_only=True, eq=False)
class OrMo(OwnMomentumASGD):
    """OrMo; `momentum` is β, and `weight_decay` is that of `MomentumOptions`.

    Raises:
        ValueError: an argument is out of range.
    """

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; u and t start at zero."""
        super().start(w, workers, compiled)
        self.turn_blockwise = BlockwiseUpdate(self.turn, scratch=0, compiled=compiled)
        self.u = zeros(w.numel(), like=w)
        # On the CPU, where the host may look at it without waiting for a GPU.
        self.t = torch.zeros(1, dtype=torch.int64)

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take a gradient in at the place of its iterate."""
        t, beta = int(self.t.item()), self.momentum
        if beta and t % self.workers == 0:
            self.turn_blockwise(self.w, self.u)
        # b = ⌊t/K⌋ − ⌈k/K⌉, with k = t − τ
        b = t // self.workers - -(-(t - step.staleness) // self.workers)
        # Without momentum a gradient counts in full when it comes.
        into, along = (beta**b, (1 - beta ** (b + 1)) / (1 - beta)) if beta else (0.0, 1.0)
        self.update_blockwise(self.w, message["g"], self.u, into=into * step.lr, along=along * step.lr)
        self.t += 1

    def turn(self, w: Tensor, u: Tensor) -> None:
        """Take the momentum step of a block."""
        # w ← w − β u
        w.add_(u, alpha=-self.momentum)
        # u ← β u
        u.mul_(self.momentum)

    def update(self, w: Tensor, g: Tensor, u: Tensor, s: Tensor, q: Tensor, *, into: float, along: float) -> None:  # type: ignore[override]
        """Apply one pushed gradient to a block; `s` and `q` are scratch, `g` is left as it is."""
        d = torch.add(g, w, alpha=self.weight_decay, out=s) if self.weight_decay else g
        # u ← u + β^b η g
        u.add_(d, alpha=into)
        # w ← w − (1 − β^{b+1}) / (1 − β) η g
        w.add_(d, alpha=-along)

    def state(self) -> Message:
        """Return `w`, `u` and `t`."""
        return super().state() | {"u": self.u, "t": self.t}
