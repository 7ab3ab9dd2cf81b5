"""Stale-synchronous parallel SGD: a worker that is too far ahead waits until the slowest ones have caught up.

    c_m: iterations, of one gradient each, that worker m has completed
    push of g_m:         w ← w − η g_m,  c_m ← c_m + 1
    pull by worker m:    waits until c_m − min_j c_j ≤ s, then gets the current w

Source: Ho, Cipar, Cui et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS
2013, written down from accounts of the paper; with gradients as here, stale-synchronous SGD. So the iteration that a
worker is at is never more than s ahead of the one that the slowest is at, and sees every update of the iterations up to
s + 1 before it. s=0 is bulk-synchronous: everyone computes at the weights that all gradients of the iteration before
made. s=∞ (null) is ASGD, and with one worker the method is sequential SGD, both to the bit.

Beyond the paper, which adds up whatever workers send and leaves the rest open: the server's step is that of
`algorithms.asgd`, with its momentum and weight decay. A pull always gets all updates that have been made, not only
those that the bound promises. A lost worker holds up nobody: the slowest is looked for among those that are left. One
that comes back, in a run that is resumed, begins where the slowest of the others is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.asgd import ASGD
from algorithms.base import Message, Step, in_range, integer


@dataclass(kw_only=True, eq=False)
class SSP(ASGD):
    """Stale-synchronous parallel SGD; `momentum`, `nesterov`, `weight_decay` and `staleness` are those of `ASGD`.

    Args:
        slack: s ≥ 0, iterations that a worker may be ahead of the slowest; None for any number.

    Raises:
        ValueError: an argument is out of range.
    """

    slack: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slack is not None:
            in_range("slack", integer("slack", self.slack), 0)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`."""
        super().start(w, workers, compiled)
        # On the CPU, where the host may look at them without waiting for a GPU.
        self.clocks = torch.zeros(workers, dtype=torch.int64)
        self.gone = torch.zeros(workers, dtype=torch.bool)

    def admits(self, worker: int) -> bool:
        """Return whether c_m − min_j c_j ≤ s."""
        if self.slack is None or self.gone[worker]:
            return True
        return int(self.clocks[worker] - self.clocks[~self.gone].min()) <= self.slack

    def pull(self, worker: int) -> Message:
        """Send the current w."""
        if self.gone[worker]:
            # Back after a loss: with its old c_m it would hold up all others for as long as it was gone.
            others = self.clocks[~self.gone]
            self.clocks[worker] = others.min() if len(others) else self.clocks.max()
            self.gone[worker] = False
        return super().pull(worker)

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        """Take one step along the pushed gradient, and count the iteration."""
        # w ← w − η g_m
        taken = super().push(worker, message, step)
        # c_m ← c_m + 1
        self.clocks[worker] += 1
        return taken

    def lost(self, worker: int) -> None:
        """Wait for it no more."""
        self.gone[worker] = True

    def state(self) -> Message:
        """Return ASGD's tensors, the c_m as `clocks`, and which workers were lost as `gone`."""
        return super().state() | {"clocks": self.clocks, "gone": self.gone}
