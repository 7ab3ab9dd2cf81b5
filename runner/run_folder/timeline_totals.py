"""The sums of a timeline without its spans, for runs of millions of events and thousands of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.run_folder.timeline import KINDS, Floats, Timeline

Ints = NDArray[np.int64]


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
        # By worker, where the sums are in vectors: gradients, pushes, sum and maximum of their staleness.
        self._counts = np.zeros((4, workers), dtype=np.int64)
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

    def staleness(self, worker: int, value: int) -> None:
        """See `Timeline.staleness`."""
        self._histogram[value] += 1
        self._pushes[worker] += 1
        self._staleness[worker] += value
        if value > self._stalest[worker]:
            self._stalest[worker] = value
        window = self._window
        window[0] += 1
        window[1] += value
        if value > window[2]:
            window[2] = value

    def to_vectors(self) -> None:
        """Move the sums from lists to vectors, for spans of many workers at once; before a single one: `to_lists`."""
        for kind, rows in self._vectors.items():
            for row, own in zip(rows, (self._sums[kind], self._starts[kind], self._ends[kind]), strict=True):
                row[:] = own
        self._counts = np.array([self._gradients, self._pushes, self._staleness, self._stalest])

    def to_lists(self) -> None:
        """Move the sums from vectors to lists."""
        for kind, rows in self._vectors.items():
            for row, own in zip(rows, (self._sums[kind], self._starts[kind], self._ends[kind]), strict=True):
                # In its place: the methods for single workers know the lists.
                own[:] = row.tolist()
            rows[:] = 0.0
        self._gradients, self._pushes, self._staleness, self._stalest = self._counts.tolist()

    def pushes(self, workers: Ints, arrivals: Floats, handled: Floats, staleness: Ints) -> None:
        """Note that pushes of different workers (n,) waited for the server, and their staleness."""
        self._note("wait", workers, arrivals, handled)
        self._counts[1, workers] += 1
        self._counts[2, workers] += staleness
        self._counts[3, workers] = np.maximum(self._counts[3, workers], staleness)
        for value, count in zip(*map(np.ndarray.tolist, np.unique(staleness, return_counts=True)), strict=True):
            self._histogram[value] += count
        pushes, total, most = self._window
        self._window = [pushes + len(workers), total + int(staleness.sum()), max(most, int(staleness.max()))]

    def tasks(self, workers: Ints, pulled: Floats, begin: Floats, end: Floats, arrival: Floats) -> None:
        """Note a task of each of some workers, as `task` does; all arguments are vectors (n,)."""
        self._note("transfer", workers, pulled, begin)
        self._note("compute", workers, begin, end)
        self._note("transfer", workers, end, arrival)
        self._counts[0, workers] += 1

    def _note(self, what: str, workers: Ints, starts: Floats, ends: Floats) -> None:
        sums, last_starts, last_ends = self._vectors[what]
        sums[workers] += ends - starts
        last_starts[workers] = starts
        last_ends[workers] = ends

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
