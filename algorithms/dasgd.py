"""DaSGD, Local SGD with delayed averaging: the average travels while d further local steps run.

    where (k+1) mod τ = d:   x_{k+1}^(m) = ξ (x_k^(m) − η g(x_k^(m)))
                                           + (1−ξ) (1/M) Σ_j [x_{k−d}^(j) − η g(x_{k−d}^(j))]           (eq. 4)
    otherwise:               x_{k+1}^(m) = x_k^(m) − η g(x_k^(m))

Source: "Squeezing SGD parallelization performance in distributed training using delayed averaging", ICLR 2022
submission. With d=0 and ξ=0 it is Local SGD, to the bit; ξ=1 never uses the average.

The average is that of the weights after the step that ends a period, so the first one is merged at k+1 = τ+d: at
k+1 = d there is nothing to average yet. An average that is still travelling when the run ends is not merged. Momentum
buffers, weight decay and what is evaluated: as in `LocalSGD`.
"""

from __future__ import annotations

from dataclasses import dataclass

from algorithms.base import CommunicationSchedule, Message, Step, in_range, integer
from algorithms.local_sgd import LocalSGD


@dataclass(kw_only=True, eq=False)
class DaSGD(LocalSGD):
    """Local SGD with delayed averaging; the other arguments are those of `LocalSGD`.

    Args:
        delay: d, local steps that an average travels, 0 <= d < τ; it hides communication that takes no longer than d
            steps of computing (section 3.3), see `run.advise`.
        xi: ξ in [0, 1], the weight of the worker's own weights when it merges an average.

    Raises:
        ValueError: an argument is out of range.
    """

    delay: int = 1
    xi: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= integer("delay", self.delay) < self.tau:
            raise ValueError(
                f"algorithm.delay={self.delay}: out of range; allowed: 0 <= delay < tau (algorithm.tau={self.tau})"
            )
        in_range("xi", self.xi, 0, 1)

    def apply(self, combined: Message, step: Step) -> None:
        """Merge the average that was sent d steps ago: eq. 4, first case; the local step has been taken."""
        if self.xi == 0:
            self.w.copy_(combined["x"])
        else:
            # eq. 4, first case: x_{k+1} = ξ y + (1−ξ) mean, as y + (1−ξ)(mean − y).
            # One operator, one pass over memory: block by block as in `BlockwiseUpdate` would only cost more.
            self.w.lerp_(combined["x"], 1 - self.xi)

    def compared(self) -> dict[str, CommunicationSchedule]:
        """Return mini-batch SGD, Local SGD with this τ, and DaSGD with this τ and d."""
        return super().compared() | {"DaSGD": CommunicationSchedule(self.period, self.delay)}
