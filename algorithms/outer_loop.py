"""The outer iterations of SVRG, and the passes of SGD that may come before them (SGD_SVRG).

    for s = 0, 1, ...:   w~ ← w;  ∇f(w~);  m updates                                 (algorithms 1 and 2)
    SGD's pass s:        η = α / (1 + s)^β                                           (section 2.5.1)

Source: Huo, PhD thesis 2020, chapter 2. Which updates are SGD's follows from their number alone.
"""

from __future__ import annotations

from typing import ClassVar

from algorithms.base import Cost, flag, in_range, integer


class OuterLoop:
    """When the workers of SVRG meet, what its updates cost, and SGD's rate; a part of `AsySVRG` and `SharedAsySVRG`.

    Args:
        inner: m, updates from one snapshot to the next.
        sgd_epochs: effective passes of asynchronous SGD before the first snapshot (SGD_SVRG); 0 begins with a snapshot.
        sgd_lr: α ≥ 0, learning rate of these passes; SVRG's own is the schedule's.
        sgd_decay: β ≥ 0 in their rate α / (1 + s)^β, s the number of the pass from 0.
        replacement: see `Stateful.replacement`; it holds for SGD's passes too.

    Raises:
        ValueError: an argument is out of range.
    """

    cost: ClassVar[Cost] = Cost(2.0)
    barrier_cost: ClassVar[Cost] = Cost(1.0)
    separable: ClassVar[bool] = True

    def __init__(
        self, *, inner: int, sgd_epochs: float, sgd_lr: float, sgd_decay: float, replacement: bool = False
    ) -> None:
        if integer("inner", inner) < 1:
            raise ValueError(f"algorithm.inner={inner}: out of range; allowed: whole numbers from 1")
        self.barrier_every: int = inner
        self.sgd_epochs = in_range("sgd_epochs", sgd_epochs, 0)
        self.sgd_lr = in_range("sgd_lr", sgd_lr, 0)
        self.sgd_decay = in_range("sgd_decay", sgd_decay, 0)
        self.replacement: bool | None = flag("replacement", replacement)
        self.barrier_from: int = 0
        self.samples = self.per_pass = 1

    def plan(self, samples: int, batch: int) -> None:
        """See `Stateful.plan`; passes of SGD end with whole batches."""
        self.samples = samples
        self.per_pass = -(-samples // batch)
        passes = int(self.sgd_epochs)
        self.barrier_from = passes * self.per_pass + -(-round((self.sgd_epochs - passes) * samples) // batch)

    def is_sgd(self, update: int) -> bool:
        """Return whether an update, numbered from 0, comes before the first snapshot."""
        return update < self.barrier_from

    def sgd_rate(self, update: int) -> float:
        """Return SGD's η for an update."""
        return self.sgd_lr / (1 + update // self.per_pass) ** self.sgd_decay  # section 2.5.1

    def evaluations(self, updates: int) -> float:
        """Return two gradients a sample, or one before the first snapshot."""
        return 1.0 if self.is_sgd(updates) else self.cost.gradients
