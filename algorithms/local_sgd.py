"""Local SGD: every worker descends on weights of its own, which are averaged after every τ steps.

    each worker m, every step k:              y^(m) = x_k^(m) − η g(x_k^(m))
    all together, where (k+1) mod τ = 0:      x_{k+1}^(m) = (1/M) Σ_j y^(j),  otherwise  x_{k+1}^(m) = y^(m)

Source: the baseline of DaSGD (ICLR 2022 submission, section 2.2.2), after Stich 2018 and Lin et al. 2018. With τ=1 and
no momentum it is synchronous SGD, to rounding.

Decided here, where the paper is silent: momentum buffers and weight decay are local; what is evaluated is the
workers' mean. As in `SSGD`, in an epoch's last step, whose shares may differ by one sample, a gradient counts by its
samples.
"""

from __future__ import annotations

from torch import Tensor

from algorithms.base import Batch, Collective, Message, Oracle, Rhythm, Step, in_range, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import check_nesterov, sgd_step


class LocalSGD(Collective):
    """Local SGD.

    Args:
        tau: τ, local steps from one averaging to the next, at least 1.
        momentum: heavy-ball coefficient μ in [0, 1), on each worker's own gradients.
        nesterov: use Nesterov's form of momentum.
        weight_decay: coefficient of the l2 term, added to each worker's gradient at its own weights.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, *, tau: int = 4, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self.period = int(in_range("tau", whole("tau", tau), 1))
        self.momentum = in_range("momentum", momentum, 0, 1, open_high=True)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)
        self.nesterov = check_nesterov(nesterov, momentum)

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=1, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """The weights."""
        return {"x": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Step on this worker's weights; contribute them where a period ends."""
        g = oracle.gradient(self.w, batch)
        if self.weight_decay:
            g.add_(self.w, alpha=self.weight_decay)
        if step.share != 1.0:
            g.mul_(step.share)
        self.update_blockwise(self.w, g, self.v, lr=step.lr)
        return {"x": self.w} if (batch.number + 1) % self.period == 0 else None

    def apply(self, combined: Message, step: Step) -> None:
        """Go on from the mean."""
        self.w.copy_(combined["x"])

    def update(self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, *, lr: float) -> None:
        """One local step on a block; `s` is scratch."""
        sgd_step(w, g, v, s, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """`w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})

    def compared(self) -> dict[str, Rhythm]:
        """Mini-batch SGD, and Local SGD with this τ."""
        return {"mini-batch SGD": Rhythm(1, 0), "Local SGD": Rhythm(self.period, 0)}


def whole(name: str, value: int) -> int:
    """Check that `value` is an integer and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"algorithm.{name}={value}: is no whole number; allowed: integers")
    return value
