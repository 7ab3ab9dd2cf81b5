"""Ringmaster ASGD: asynchronous SGD without gradients whose delay reaches a threshold.

    push of g with delay δ:    if δ < R:  x ← x − γ g          (a new iterate, k ← k + 1)
                               else:      ignored              (k stays as it is)
    with stops, after k ← k + 1:  workers whose delay is now R stop, and begin anew at x

Source: Maranjyan, Tyurin, Richtárik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity", ICML
2025 (arXiv 2501.16168): Algorithm 4 without calculation stops, Algorithm 5 with. Without, a worker whose gradient is
ignored has computed it to the end, and begins anew at the current iterate. The updates are second hand: written down
from accounts of the paper.

The delay δ counts iterates, so gradients that were ignored make no other one older. R=∞ (null) is ASGD, and with one
worker the method is sequential SGD, both to the bit.

A stopped worker begins anew with the same batch, and what it dropped counts as no gradient: every sample is used once
in a pass, and the price is time. A gradient that is complete when its worker hears of the stop comes in all the same,
and is ignored; where messages take no time there is none, and every delay stays below R.

The paper's γ is the schedule's learning rate. Beyond the paper: momentum and weight decay on the server, as in
`algorithms.asgd`; a gradient that is ignored changes neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from algorithms.asgd import ASGD
from algorithms.base import Message, Step, flag, in_range, integer


@dataclass(kw_only=True, eq=False)
class Ringmaster(ASGD):
    """Ringmaster ASGD; `momentum`, `nesterov` and `weight_decay` are those of `SGDOptions`, on the server.

    Args:
        threshold: R ≥ 1, the delay from which on gradients are ignored; None for never.
        stops: whether workers are told to stop as soon as theirs would be.

    Raises:
        ValueError: an argument is out of range.
    """

    # No option here: a gradient counts in full, or not at all.
    staleness: ClassVar[str] = "plain"

    threshold: int | None
    stops: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            in_range("threshold", integer("threshold", self.threshold), 1)
        flag("stops", self.stops)

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        """Take one step along the pushed gradient, unless it is too old."""
        # δ ≥ R: ignored, and no new iterate
        if self.threshold is not None and step.staleness >= self.threshold:
            return False
        # δ < R: x ← x − γ g
        return super().push(worker, message, step)

    def recalled(self, staleness: Mapping[int, int]) -> Iterable[int]:
        """Return the workers whose gradients would be ignored."""
        # δ ≥ R: stop, and begin anew
        return [m for m, delay in staleness.items() if self.threshold is not None and delay >= self.threshold]
