"""What runs of the clock alone have in common: nothing is computed, so only counts and seconds go on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from runner.loop.batches import Batches
from runner.run_folder.timeline_totals import TimelineTotals


class CountsBytes(Protocol):
    """What the clocks of all topologies have in common."""

    nbytes: int


C = TypeVar("C", bound=CountsBytes)


class TimingRun(ABC, Generic[C]):
    """A method's events on the virtual clock: those of its simulated executor, at the same seconds, to the bit.

    Args:
        clock: of the topology.
        batches: the run's batches; only their number and their sizes are asked for.
        timeline: sums of what each worker did.

    Attributes:
        samples_seen: gradient evaluations so far.
        updates: updates of the weights so far.
        seconds: virtual seconds so far.
        events: gradients, pushes or steps of single workers so far.
    """

    def __init__(self, clock: C, batches: Batches, timeline: TimelineTotals) -> None:
        self.clock = clock
        self.batches = batches
        self.timeline = timeline
        self.samples_seen = 0.0
        self.updates = 0
        self.seconds = 0.0
        self.events = 0

    @property
    def epoch(self) -> float:
        """Effective passes so far: gradient evaluations / n."""
        return self.samples_seen / self.batches.samples

    def reached(self, epoch: float) -> bool:
        """Return whether so many effective passes are made; the tolerance is that of `TrainControl`."""
        return self.epoch >= epoch - 1e-9

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether every batch is done."""

    @property
    def nbytes(self) -> int:
        """Bytes that were sent, or read and written in a shared memory."""
        return self.clock.nbytes

    @abstractmethod
    def advance(self, epoch: float, most: int) -> None:
        """Handle events until so many effective passes are made, to the end, or about `most` of them."""

    def columns(self) -> dict[str, float]:
        """Return what the run adds to a row of metrics; nothing by default."""
        return {}
