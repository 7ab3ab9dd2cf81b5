"""The learning rate as a function of effective passes.

Constant and multi-step (the papers' "divided by 10 after epochs 80 and 120"), each optionally after a linear warm-up
that the DC-ASGD papers do not mention but that their learning rate needs when weights are random and gradients stale.
Milestones and warm-up both count from the run's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Rate(NamedTuple):
    """A learning rate.

    Attributes:
        lr: the rate η, warm-up included.
        decay: η without warm-up relative to its initial value.
    """

    lr: float
    decay: float


class Schedule:
    """Learning-rate schedule driven by effective passes.

    Args:
        lr: initial (after warm-up: peak) learning rate.
        milestones: effective passes after which the rate is multiplied by `gamma`; empty for a constant rate.
        gamma: factor at each milestone.
        warmup_epochs: effective passes of linear warm-up; 0 for none.
        warmup_from: "lr_over_workers" starts the warm-up at lr/M, "zero" at 0.
        workers: number of workers M.
    """

    def __init__(
        self,
        *,
        lr: float,
        workers: int,
        milestones: Sequence[float] = (),
        gamma: float = 0.1,
        warmup_epochs: float = 0.0,
        warmup_from: str = "lr_over_workers",
    ) -> None:
        self.lr = lr
        self.milestones = sorted(milestones)
        self.gamma = gamma
        self.warmup_epochs = warmup_epochs
        self.warmup_start = 1 / workers if warmup_from == "lr_over_workers" else 0.0

    def at(self, epoch: float) -> Rate:
        """Return the rate of an update made after `epoch` effective passes."""
        decay = self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        warmup = 1.0
        if epoch < self.warmup_epochs:
            warmup = self.warmup_start + (1 - self.warmup_start) * epoch / self.warmup_epochs
        return Rate(self.lr * decay * warmup, decay)
