"""The clock of simulated workers on shared memory: how long a read, a gradient, a write and a snapshot take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.config.units import FLOAT_BYTES
from runner.loop.clock import Clock
from runner.run_folder.timeline import Timeline


class MemoryClock:
    """Virtual seconds on one vector of weights in memory.

    Args:
        clock: virtual durations.
        timeline: what each worker did when.
        elements: of the vector.

    Attributes:
        tasks: by worker, gradients that it began.
        nbytes: that all workers together have read and written.
    """

    def __init__(self, clock: Clock, timeline: Timeline, *, elements: int) -> None:
        self.clock = clock
        self.timeline = timeline
        self.read_bytes = FLOAT_BYTES * elements
        self.read_seconds = clock.transfer_seconds(self.read_bytes)
        self.tasks = [0] * clock.workers
        self.nbytes = 0

    def compute(self, worker: int, begin: float, load: float, gradients: float) -> float:
        """Return when a worker that begins to read at second `begin` has its gradient."""
        self.nbytes += self.read_bytes
        read = begin + self.read_seconds
        # Counted before the write: the same task draws the same delay whenever its events are handled.
        self.tasks[worker] += 1
        end = read + self.clock.compute_seconds(worker, self.tasks[worker] - 1, load, gradients)
        self.timeline.span(worker, "transfer", begin, read)
        self.timeline.span(worker, "compute", read, end)
        return end

    def write_seconds(self, elements: int) -> float:
        """Return how long a write of so many elements takes."""
        return self.clock.transfer_seconds(FLOAT_BYTES * elements)

    def written(self, worker: int, begin: float, end: float, elements: int) -> None:
        """Note that a worker has written so many elements from second `begin` to `end`."""
        self.nbytes += FLOAT_BYTES * elements
        self.timeline.span(worker, "transfer", begin, end)

    def snapshot(self, waiting: Mapping[int, float], loads: Sequence[float], gradients: float) -> float:
        """Return when all workers have the gradients of their shards, for which they wait for each other.

        Args:
            waiting: by worker, since when it waits.
            loads: the samples of each worker's shard relative to a full batch.
            gradients: gradient evaluations per sample.
        """
        met, ends = max(waiting.values()), list[float]()
        for worker, load in enumerate(loads):
            seconds = self.clock.compute_seconds(worker, self.tasks[worker], load, gradients)
            self.tasks[worker] += 1
            self.timeline.span(worker, "wait", waiting[worker], met)
            self.timeline.span(worker, "compute", met, met + seconds)
            ends.append(met + seconds)
        over = max(ends)
        for worker, end in enumerate(ends):
            self.timeline.span(worker, "wait", end, over)
        return over
