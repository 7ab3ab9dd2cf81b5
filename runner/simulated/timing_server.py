"""The events of a parameter server on the clock alone: `simulated.server` without gradients and weights."""

from __future__ import annotations

from algorithms.base import ParameterServer, shard_range
from runner.loop.barrier import next_barrier
from runner.loop.batches import Batches
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.events import ClockEvents
from runner.simulated.timing_run import TimingRun


class TimingServer(TimingRun[ClockEvents]):
    """Pushes and barriers of a method, in the order and at the seconds of `SimulatedServer`.

    Nobody is lost on a clock, so leases are a count: which batch comes next, and how many are held.

    Args:
        method: the server half, unstarted.
        events: the clock.
        parameters: number of weights.
        batches: see `TimingRun`.
        timeline: likewise; that of `events`.
    """

    def __init__(
        self,
        method: ParameterServer,
        events: ClockEvents,
        *,
        parameters: int,
        batches: Batches,
        timeline: TimelineTotals,
    ) -> None:
        super().__init__(events, batches, timeline)
        self.method = method
        self.workers = len(events.tasks)
        self.rounds = method.rounds(parameters)
        self.quota = next_barrier(method, -1)
        self.next = 0
        self.idle: set[int] = set()
        # By worker, the updates when it pulled last, and the samples of its batches.
        self.version = [0] * self.workers
        self.sizes = [0] * self.workers
        self._begun = False

    @property
    def finished(self) -> bool:
        """See `TimingRun.finished`."""
        # Every push follows a pull: no batch is held if the heap is empty.
        return self._begun and self.next >= len(self.batches) and not self.clock.heap

    def advance(self, epoch: float, most: int) -> None:
        """See `TimingRun.advance`."""
        self._begin()
        clock, method, version, sizes = self.clock, self.method, self.version, self.sizes
        heap, count, next_push = clock.heap, self.timeline.staleness, clock.next
        # Looked up once: this loop is passed for every event.
        total, samples, due = len(self.batches), self.batches.samples, epoch - 1e-9
        for _ in range(most):
            if not heap:
                # Without a push on its way the workers are at a barrier, or at the end.
                if self.next >= total:
                    return
                self._meet()
            else:
                _, worker, now, _ = next_push()
                count(worker, self.updates - version[worker])
                self.samples_seen += sizes[worker] * method.evaluations(self.updates)
                self.updates += 1
                self.seconds = now
                self.events += 1
                self._pull(worker, now)
            if self.samples_seen / samples >= due:
                return

    def _begin(self) -> None:
        """Answer the first pulls."""
        if not self._begun:
            self._begun = True
            for worker in range(self.workers):
                self._pull(worker, self.clock.begin())

    def _pull(self, worker: int, now: float) -> None:
        first, size = self.next, self.batches.size
        last = min(first + self.method.steps(worker), self.most)
        if first >= last:
            self.idle.add(worker)
            return
        self.next = last
        self.version[worker] = self.updates
        sizes = [self.batches.size_of(number) for number in range(first, last)]
        self.sizes[worker] = sum(sizes)
        self.clock.pulled(worker, [each / size for each in sizes], now, self.method.evaluations(self.updates))

    @property
    def most(self) -> int:
        """Batches that may be handed out before a barrier or the end."""
        return len(self.batches) if self.quota is None else min(self.quota, len(self.batches))

    def _meet(self) -> None:
        """Hold the barrier that all workers have come to."""
        samples, cost = self.batches.samples, self.method.barrier_cost.gradients
        loads = [len(shard_range(samples, self.workers, m)) / self.batches.size for m in range(self.workers)]
        self.seconds = self.clock.meet(self.rounds, loads, cost)
        self.samples_seen += samples * cost
        self.quota = next_barrier(self.method, self.updates)
        waiting, self.idle = sorted(self.idle), set()
        for worker in waiting:
            self._pull(worker, self.seconds)
