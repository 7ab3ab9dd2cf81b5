"""The learning rate as a function of effective passes.

Five kinds, each optionally after a linear warm-up: constant, multi-step (the papers' "divided by 10 after epochs 80 and
120"), one-cycle (linear up, linear down), polynomial decay and inverse, lr / (1 + s)^power in pass s from 0 (Huo's
thesis, section 2.5.1). Milestones, passes and warm-up count from the run's start; one-cycle and polynomial span the
rest, from the end of the warm-up to the run's end.

With `base_batch` every rate is multiplied by B / base_batch, B being the samples of an update: the linear scaling rule
(Goyal et al. 2017; γ_base · B / B_base in Huo's thesis, section 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

DECAY_FLOOR = 1e-9
"""Methods divide by the decay; a rate may end at 0."""


class Rate(NamedTuple):
    """A learning rate.

    Attributes:
        lr: the rate η, warm-up included.
        decay: η without warm-up relative to the value that it falls from: 1 until it begins to fall, always above 0.
    """

    lr: float
    decay: float


class Schedule:
    """Learning-rate schedule driven by effective passes.

    Args:
        lr: the rate after warm-up; the peak of a one-cycle.
        workers: number of workers M.
        kind: "constant", "multistep", "one_cycle", "polynomial" or "inverse"; None takes "multistep", which
            without milestones is constant.
        epochs: effective passes of the run, which one-cycle and polynomial end with.
        batch: samples B of an update, for `base_batch`.
        milestones: multi-step: effective passes after which the rate is multiplied by `gamma`.
        gamma: multi-step: factor at each milestone.
        lr_start: one-cycle: the rate it starts from.
        lr_end: one-cycle and polynomial: the rate they end with.
        rise: one-cycle: the share of its passes in which the rate rises.
        power: polynomial: lr_end + (lr − lr_end) (1 − t)^power, t from 0 to 1; inverse: lr / (1 + s)^power.
        base_batch: B_base, for which the rates are meant; None leaves them as they are.
        warmup_epochs: effective passes of linear warm-up; 0 for none.
        warmup_from: "lr_over_workers" starts the warm-up at 1/M of the rate it leads to, "zero" at 0. One worker, for
            which 1/M would be no warm-up, starts at 0 in any case.
    """

    def __init__(
        self,
        *,
        lr: float,
        workers: int,
        kind: str | None = None,
        epochs: float | None = None,
        batch: int | None = None,
        milestones: Sequence[float] = (),
        gamma: float = 0.1,
        lr_start: float | None = None,
        lr_end: float | None = None,
        rise: float | None = None,
        power: float | None = None,
        base_batch: int | None = None,
        warmup_epochs: float = 0.0,
        warmup_from: str = "lr_over_workers",
    ) -> None:
        self.kind = kind or "multistep"
        self.scale = 1.0 if base_batch is None or batch is None else batch / base_batch
        self.lr = lr * self.scale
        self.epochs = epochs
        self.milestones = sorted(milestones)
        self.gamma = gamma
        # Relative to `lr` as it was given: both ends scale with the batch as the rate does.
        self.first = 1.0 if lr_start is None else lr_start / lr
        self.last = 0.0 if lr_end is None else lr_end / lr
        self.rise = 0.0 if rise is None else rise
        self.power = 1.0 if power is None else power
        self.warmup_epochs = warmup_epochs
        self.warmup_start = 1 / workers if warmup_from == "lr_over_workers" and workers > 1 else 0.0

    def at(self, epoch: float) -> Rate:
        """Return the rate of an update made after `epoch` effective passes."""
        # The warm-up is no part of the decay, which says how far the rate has fallen.
        shape, decay = self._shape(epoch)
        decay = max(decay, DECAY_FLOOR)
        warmup = 1.0
        # On top of the shape: the milestones, too, count from the run's start.
        if epoch < self.warmup_epochs:
            warmup = self.warmup_start + (1 - self.warmup_start) * epoch / self.warmup_epochs
        return Rate(self.lr * shape * warmup, decay)

    def corners(self) -> list[float]:
        """Return the effective passes, rising, at which the rate bends, jumps, begins or ends."""
        # Without a length the schedule is drawn up to its last corner.
        end = self.epochs if self.epochs is not None else max([self.warmup_epochs, *self.milestones])
        points = {0.0, end, min(self.warmup_epochs, end)}
        if self.kind == "one_cycle":
            points.add(self.warmup_epochs + self.rise * (end - self.warmup_epochs))
        if self.kind == "inverse":
            # It falls at the beginning of each pass.
            points.update(range(1, math.ceil(end)))
        points.update(milestone for milestone in self.milestones if milestone < end)
        return sorted(points)

    def _shape(self, epoch: float) -> tuple[float, float]:
        """Return the rate without warm-up, and its decay, both relative to `lr`."""
        if self.kind == "one_cycle":
            t = self._position(epoch)
            # With no rise at all this branch is never taken, so nothing is divided by 0.
            if t < self.rise:
                # A decay of 1 while it rises: methods that scale by the decay must not take a
                # rising rate for a falling one.
                return self.first + (1 - self.first) * t / self.rise, 1.0
            fall = 1 + (self.last - 1) * (t - self.rise) / (1 - self.rise)
            return fall, fall
        if self.kind == "polynomial":
            fall = self.last + (1 - self.last) * (1 - self._position(epoch)) ** self.power
            return fall, fall
        if self.kind == "inverse":
            # The tolerance: effective passes are quotients, and a whole one may come out a rounding below.
            fall = (1 + math.floor(epoch + 1e-9)) ** -self.power
            return fall, fall
        # At a milestone itself the rate has fallen already.
        decay = 1.0 if self.kind == "constant" else self.gamma ** sum(epoch >= step for step in self.milestones)
        return decay, decay

    def _position(self, epoch: float) -> float:
        """Return how far, from 0 to 1, the passes after the warm-up have come."""
        assert self.epochs is not None
        # Clipped: an update may step over the end of the run, and a fractional power of a negative number is complex.
        return min(max(0.0, (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)), 1.0)
