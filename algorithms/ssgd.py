"""Synchronous SGD, and sequential SGD as its case of one worker.

    each worker m:    g_m = ∇f_m(w_t) + weight_decay · w_t
    all together:     w_{t+1} = w_t − η (1/M) Σ_m g_m                                       (eq. 108)

Source: the baselines of Zheng et al., ICML 2017 (section 6, appendix H). The update is `torch.optim.SGD`'s, to the bit,
with momentum, Nesterov momentum and weight decay too.

Deviation: where the last step of an epoch leaves the workers with shares that differ by one sample, a gradient counts
by its samples, so that the sum is the mean gradient of all of the step's samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from algorithms.base import Batch, Collective, Message, Oracle, Step, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import SGDOptions, sgd_step


@dataclass(kw_only=True, eq=False)
class SSGD(SGDOptions, Collective):
    """Synchronous SGD; the arguments are those of `SGDOptions`.

    Momentum is on the averaged gradient; weight decay is added to each worker's.
    """

    replicated: ClassVar[bool] = True

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=1, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """Return the gradient."""
        return {"g": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message:
        """Return g_m."""
        g = oracle.gradient(self.w, batch)
        if self.weight_decay:
            g.add_(self.w, alpha=self.weight_decay)
        return {"g": g if step.relative_size == 1.0 else g.mul_(step.relative_size)}

    def apply(self, combined: Message, step: Step) -> None:
        """Take a step along the mean gradient."""
        self.update_blockwise(self.w, combined["g"], self.v, lr=step.lr)

    def update(self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, *, lr: float) -> None:
        """Take one step on a block; `s` is scratch."""
        # eq. 108: w_{t+1} = w_t − η g, by way of the velocity v where there is momentum
        sgd_step(w, g, v, s, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """Return `w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})
