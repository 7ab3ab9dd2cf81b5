"""Rennala SGD: a step with the mean of B gradients of the current iterate, whichever workers they come from.

    push of g with delay δ:    if δ > 0:  ignored
                               else:      G ← G + g, s ← s + 1
                               if s = B:  x ← x − γ G / B;  G ← 0, s ← 0

Source: Tyurin, Richtárik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed
Computation Model", NeurIPS 2023. The update is second hand: written down from accounts of the paper, whose numbers of
algorithms and equations are therefore not given.

A worker that has pushed computes the next gradient at once, at the same iterate if there is no new one: fast workers
give several of the B gradients, slow ones that come too late none. B=1 with one worker is sequential SGD, to the bit;
with one worker and any B it is SGD with gradients accumulated over B batches.

The paper's γ is the schedule's learning rate of the push that completes the B. Gradients count alike, also that of an
epoch's short last batch. Beyond the paper: momentum and weight decay on the server, on the mean, as in
`algorithms.asgd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.asgd import ASGD
from algorithms.base import Message, Step, in_range, integer, zeros


@dataclass(kw_only=True, eq=False)
class Rennala(ASGD):
    """Rennala SGD; `momentum`, `nesterov` and `weight_decay` are those of `SGDOptions`, on the server.

    Args:
        gradients: B ≥ 1, gradients that make a step; None for as many as there are workers.

    Raises:
        ValueError: an argument is out of range.
    """

    # No option here: only fresh gradients count.
    staleness: ClassVar[str] = "plain"

    gradients: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradients is not None:
            in_range("gradients", integer("gradients", self.gradients), 1)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`."""
        super().start(w, workers, compiled)
        self.b = workers if self.gradients is None else self.gradients
        self.total = zeros(w.numel(), like=w)
        # On the CPU, where the host may look at it without waiting for a GPU.
        self.collected = torch.zeros(1, dtype=torch.int64)

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        """Collect the gradient if it is of the current iterate, and take a step with the last of B."""
        # δ > 0: of an older iterate
        if step.staleness > 0:
            return False
        # G ← G + g, s ← s + 1; the first is copied, as zero plus −0 would not be −0
        if self.collected.item() == 0:
            self.total.copy_(message["g"])
        else:
            self.total.add_(message["g"])
        self.collected += 1
        if self.collected.item() < self.b:
            return False
        # x ← x − γ G / B
        self.update_blockwise(self.w, self.total.div_(self.b), self.v, lr=step.lr)
        # s ← 0
        self.collected.zero_()
        return True

    def state(self) -> Message:
        """Return ASGD's tensors, G as `total`, and s as `collected`."""
        return super().state() | {"total": self.total, "collected": self.collected}
