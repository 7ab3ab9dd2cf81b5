"""The events of workers on shared memory on the clock alone: `simulated.shared_memory` without gradients and weights.

A vector is read and written in pieces there, so that others come in between; when a write ends does not depend on it.
Here a task is one event, its end.
"""

from __future__ import annotations

import heapq

from algorithms.base import shard_range
from algorithms.shared_memory import SharedMemory
from runner.loop.barrier import next_barrier
from runner.loop.batches import Batches
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.memory_clock import MemoryClock
from runner.simulated.timing_run import TimingRun


class TimingMemory(TimingRun[MemoryClock]):
    """Updates and snapshots of a method, in the order and at the seconds of `SimulatedMemory`.

    Args:
        method: the method, unstarted.
        clock: of the workers.
        written: elements that an update writes.
        batches: see `TimingRun`.
        timeline: likewise; that of `clock`.
    """

    def __init__(
        self, method: SharedMemory, clock: MemoryClock, *, written: int, batches: Batches, timeline: TimelineTotals
    ) -> None:
        super().__init__(clock, batches, timeline)
        self.method = method
        self.written = written
        self.write_seconds = clock.write_seconds(written)
        self.workers = len(clock.tasks)
        self.quota = next_barrier(method, -1)
        self.next = 0
        self.heap: list[tuple[float, int]] = []
        self.waiting: dict[int, float] = {}
        # By worker, of its task: updates when its read began, samples, evaluations, and when its write begins.
        self.tasks: list[tuple[int, int, float, float]] = [(0, 0, 0.0, 0.0)] * self.workers
        self._begun = False

    @property
    def finished(self) -> bool:
        """See `TimingRun.finished`."""
        return self._begun and self.next >= len(self.batches) and not self.heap

    def advance(self, epoch: float, most: int) -> None:
        """See `TimingRun.advance`."""
        if not self._begun:
            self._begun = True
            for worker in range(self.workers):
                self._start_task(worker, 0.0)
            if not self.heap:
                # A run may begin with a barrier.
                self._hold_barrier()
        for _ in range(most):
            if self.finished:
                return
            now, worker = heapq.heappop(self.heap)
            version, size, gradients, begin = self.tasks[worker]
            self.clock.written(worker, begin, now, self.written)
            self.timeline.staleness(worker, self.updates - version)
            self.samples_seen += size * gradients
            self.updates += 1
            self.seconds = now
            self.events += 1
            self._start_task(worker, now)
            # The last to come holds the barrier, before the counts are looked at.
            if not self.heap and not self.finished:
                self._hold_barrier()
            if self.reached(epoch):
                return

    def _start_task(self, worker: int, now: float) -> None:
        number = self.next
        if number >= len(self.batches) or (self.quota is not None and number >= self.quota):
            self.waiting[worker] = now
            return
        self.next = number + 1
        size, gradients = self.batches.size_of(number), self.method.evaluations(number)
        end = self.clock.compute(worker, now, size / self.batches.size, gradients)
        self.tasks[worker] = self.updates, size, gradients, end
        heapq.heappush(self.heap, (end + self.write_seconds, worker))

    def _hold_barrier(self) -> None:
        """Take a snapshot, for which all workers wait."""
        samples, cost = self.batches.samples, self.method.barrier_cost.gradients
        loads = [len(shard_range(samples, self.workers, m)) / self.batches.size for m in range(self.workers)]
        self.seconds = self.clock.snapshot(self.waiting, loads, cost)
        self.samples_seen += samples * cost
        self.quota = next_barrier(self.method, self.updates)
        self.waiting.clear()
        for worker in range(self.workers):
            self._start_task(worker, self.seconds)
