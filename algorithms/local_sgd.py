"""Local SGD: every worker takes steps on weights of its own, which are averaged after every τ steps.

    each worker m, every step k:              y^(m) = x_k^(m) − η g(x_k^(m))
    all together, where (k+1) mod τ = 0:      x_{k+1}^(m) = (1/M) Σ_j y^(j),  otherwise  x_{k+1}^(m) = y^(m)

Source: the baseline of DaSGD (ICLR 2022 submission, section 2.2.2), after Stich 2018 and Lin et al. 2018. With τ=1 and
no momentum it is synchronous SGD, to rounding.

Decided here, where the paper is silent: momentum buffers and weight decay are local; what is evaluated is the
workers' mean. As in `SSGD`, in an epoch's last step, whose shares may differ by one sample, a gradient counts by its
samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from algorithms.base import Batch, Collective, CommunicationSchedule, Message, Oracle, Step, in_range, integer, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import SGDOptions, sgd_step


@dataclass(kw_only=True, eq=False)
class LocalSGD(SGDOptions, Collective):
    """Local SGD; `momentum`, `nesterov` and `weight_decay`, of each worker's own steps, are those of `SGDOptions`.

    Args:
        tau: τ, local steps from one averaging to the next, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.period = int(in_range("tau", integer("tau", self.tau), 1))

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=1, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """Return the weights."""
        return {"x": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Take a step on this worker's weights; contribute them at the end of a period."""
        # y = x_k − η g(x_k), with the l2 term and momentum local to the worker
        g = oracle.gradient(self.w, batch)
        if self.weight_decay:
            g.add_(self.w, alpha=self.weight_decay)
        if step.relative_size != 1.0:
            g.mul_(step.relative_size)
        self.update_blockwise(self.w, g, self.v, lr=step.lr)
        # a mean of the y where (k+1) mod τ = 0
        return {"x": self.w} if (batch.number + 1) % self.period == 0 else None

    def apply(self, combined: Message, step: Step) -> None:
        """Continue from the mean of the weights."""
        self.w.copy_(combined["x"])

    def update(self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, *, lr: float) -> None:
        """Take one local step on a block; `s` is scratch."""
        sgd_step(w, g, v, s, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """Return `w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})

    def compared(self) -> dict[str, CommunicationSchedule]:
        """Return mini-batch SGD, and Local SGD with this τ."""
        return {"mini-batch SGD": CommunicationSchedule(1, 0), "Local SGD": CommunicationSchedule(self.period, 0)}
