"""How ranks that combine agree to stop after the same step: two more elements of every contribution.

A rank was asked to stop, or its loss is not finite: where all combine with all, every rank knows it with that
combination. Where each combines with its neighbours alone, news take a combination from neighbour to neighbour, so a
rank names the combination after which all stop: by then the last one has heard of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.loop.train_control import CHECK_EVERY
from runner.run_folder.summary_keys import DIVERGED, INTERRUPTED

FLAGS = 2
"""Number of elements after the contribution: whether a rank was asked to stop, whether a loss is not finite."""


class StopFlags:
    """The flags of a rank that hears of all others in every combination.

    Args:
        device: of the contributions.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.received = 0

    def sent(self, stopping: bool, loss: Tensor) -> Tensor:
        """Return what goes with a contribution: whether this rank was asked to stop, and whether its loss is finite."""
        flags = torch.zeros(FLAGS, device=self.device)
        # Part of the contribution: a collective of its own for each step would cost another latency.
        flags[0] = float(stopping)
        # A comparison on the device: the host does not wait for the loss.
        flags[1] = (~torch.isfinite(loss)).float()
        return flags

    def verdict(self, flags: Tensor) -> str | None:
        """Return the status with which all ranks stop now, None to go on, from the flags (R, FLAGS) that have come."""
        self.received += 1
        self._take(flags)
        # Reading the flags makes the host wait for a GPU, so on a GPU they are read only every so many steps.
        # All ranks have received as many, so they look in the same step.
        if self.device.type != "cpu" and self.received % CHECK_EVERY:
            return None
        stopping, infinite = self._found(flags)
        return DIVERGED if infinite else INTERRUPTED if stopping else None

    def _take(self, flags: Tensor) -> None:
        """Take in flags that may not be read now."""

    def _found(self, flags: Tensor) -> list[float]:
        """Return for each flag whether it holds for all ranks now."""
        # One row, already summed, of a mean; a row for each rank of a gather.
        return flags.sum(0).tolist()


class SpreadFlags(StopFlags):
    """The flags of a rank that hears of its neighbours alone: the combinations after which all stop, infinite if none.

    Args:
        device: see `StopFlags`.
        lag: combinations until news has reached the last rank, that in which they set out too.
    """

    def __init__(self, device: torch.device, lag: int) -> None:
        super().__init__(device)
        self.lag = lag
        self.started = 0
        self._due = torch.full((FLAGS,), torch.inf, device=device)

    def sent(self, stopping: bool, loss: Tensor) -> Tensor:
        """See `StopFlags.sent`; what was heard from neighbours goes on to the others."""
        self.started += 1
        wanted = super().sent(stopping, loss).bool()
        # All that want to stop name different combinations, and the first of them counts: the last rank knows it then.
        named = torch.full_like(self._due, float(self.started + self.lag - 1))
        self._due = torch.where(wanted, torch.minimum(self._due, named), self._due)
        return self._due.clone()

    def _take(self, flags: Tensor) -> None:
        self._due = torch.minimum(self._due, flags.amin(0))

    def _found(self, flags: Tensor) -> list[float]:
        return (self._due <= self.received).tolist()
