"""The sums of a timeline without its spans, for runs of millions of events and thousands of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.run_folder.timeline import KINDS, Floats, Timeline


class TimelineTotals(Timeline):
    """A timeline that keeps sums alone; its reports are those of a `Timeline`, to the bit.

    What comes worker by worker is added up in lists, what comes of all workers at once in vectors. Nothing is checked:
    the spans are those of a clock.

    Args:
        workers: Number of workers M.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, writes=False)
        self._sums: dict[str, list[float]] = {kind: [0.0] * workers for kind in KINDS}
        self._starts: dict[str, list[float]] = {kind: [0.0] * workers for kind in KINDS}
        self._ends: dict[str, list[float]] = {kind: [0.0] * workers for kind in KINDS}
        self._vectors: dict[str, Floats] = {kind: np.zeros((3, workers)) for kind in KINDS}
        self._steps = 0
        self._transfers, self._computes = self._sums["transfer"], self._sums["compute"]
        self._transfer_starts, self._compute_starts = self._starts["transfer"], self._starts["compute"]
        self._transfer_ends, self._compute_ends = self._ends["transfer"], self._ends["compute"]

    def span(self, worker: int, what: str, start: float, end: float) -> None:
        """See `Timeline.span`."""
        self._sums[what][worker] += end - start
        self._starts[what][worker] = start
        self._ends[what][worker] = end
        if what == "compute":
            self._gradients[worker] += 1

    def task(self, worker: int, pulled: float, begin: float, end: float, arrival: float) -> None:
        """See `Timeline.task`."""
        # One after the other, not their sum at once: two additions round as two spans do.
        self._transfers[worker] += begin - pulled
        self._transfers[worker] += arrival - end
        self._transfer_starts[worker] = end
        self._transfer_ends[worker] = arrival
        self._computes[worker] += end - begin
        self._compute_starts[worker] = begin
        self._compute_ends[worker] = end
        self._gradients[worker] += 1

    def spans(self, what: str, starts: Floats, ends: Floats, chosen: NDArray[np.bool_] | None = None) -> None:
        """See `Timeline.spans`."""
        sums, last_starts, last_ends = self._vectors[what]
        if chosen is None:
            sums += ends - starts
            last_starts[:], last_ends[:] = starts, ends
        else:
            sums += np.where(chosen, ends - starts, 0.0)
            np.copyto(last_starts, starts, where=chosen)
            np.copyto(last_ends, ends, where=chosen)
        if what == "compute":
            # All workers step together: a count for each of them would be the same.
            self._steps += 1

    def report(self, seconds: float) -> dict[str, Any]:
        """See `Timeline.report`."""
        self._settle()
        return super().report(seconds)

    def slowest(self, seconds: float) -> dict[str, Any]:
        """See `Timeline.slowest`."""
        self._settle()
        return super().slowest(seconds)

    def shares(self, seconds: float) -> dict[str, float]:
        """Return the share of the run that workers computed, transferred and waited: the mean over them, by kind."""
        self._settle()
        each = range(self._workers)
        return {kind: sum(self._share(worker, kind, seconds) for worker in each) / self._workers for kind in KINDS}

    @property
    def staleness_mean(self) -> float | None:
        """Mean staleness of all pushes; None if nothing was pushed."""
        pushes = sum(self._pushes)
        return sum(self._staleness) / pushes if pushes else None

    @property
    def staleness_max(self) -> int | None:
        """Largest staleness of all pushes; None if nothing was pushed."""
        return max(self._histogram, default=None)

    def _settle(self) -> None:
        """Put the sums where a `Timeline` has them. A run uses lists or vectors; of the other the sums are 0."""
        for kind in KINDS:
            sums, starts, ends = self._vectors[kind].tolist()
            for worker in range(self._workers):
                self._seconds[worker][kind] = self._sums[kind][worker] + sums[worker]
                self._last[worker][kind] = [
                    self._starts[kind][worker] + starts[worker],
                    self._ends[kind][worker] + ends[worker],
                ]
        if self._steps:
            self._gradients = [self._steps] * self._workers
