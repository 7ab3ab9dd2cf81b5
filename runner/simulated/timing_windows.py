"""The events of a parameter server with very many workers: those that cannot meet each other, all at once.

Pushes on their way are sorted by their arrival. Up to the first one that arrives after another of them was handled,
answered, computed on and pushed again, none depends on what the others cause: such a window is handled by vector
operations, with the bits of events that are taken one by one.
"""

from __future__ import annotations

import heapq

import numpy as np

from runner.loop.philox import Floats, Ints
from runner.simulated.timing_server import TimingServer

MANY = 200
"""Workers from which on windows pay: a window has a part of all pushes, and a vector operation costs ten additions."""


class TimingWindows(TimingServer):
    """A `TimingServer` that takes a window of pushes at a time where it can; its arguments are those."""

    # While windows are taken: by worker, when its push arrives, and what the lists of `TimingServer` hold (M,).
    _arrivals: Floats
    _versions: Ints
    _samples: Ints
    _tasks: Ints

    def advance(self, epoch: float, most: int) -> None:
        """See `TimingRun.advance`."""
        self._begin()
        end = self.events + most
        while self.events < end and not self.finished:
            if self._room >= self.workers and len(self.clock.heap) == self.workers:
                self._take_windows(epoch, end)
            else:
                # Near a barrier or the end some workers get no batch.
                super().advance(epoch, min(self.workers, end - self.events))
            if self.reached(epoch):
                return

    @property
    def _room(self) -> int:
        """Batches that can be handed out before a barrier or the end."""
        return self.most - self.next

    def _take_windows(self, epoch: float, end: int) -> None:
        """Handle windows for as long as every worker gets another batch."""
        self._to_vectors()
        wanted = self.workers
        while self.events < end and self._room >= self.workers:
            wanted = self._window(epoch, end, wanted)
            if self.reached(epoch):
                break
        self._to_lists()

    def _to_vectors(self) -> None:
        self._arrivals = np.empty(self.workers)
        for arrival, worker in self.clock.heap:
            self._arrivals[worker] = arrival
        self._versions, self._samples = np.array(self.version), np.array(self.sizes)
        self._tasks = np.array(self.clock.tasks)
        self.timeline.to_vectors()

    def _to_lists(self) -> None:
        self.timeline.to_lists()
        self.version[:], self.sizes[:] = self._versions.tolist(), self._samples.tolist()
        self.clock.tasks[:] = self._tasks.tolist()
        # In its place: the loop for single events knows the list.
        self.clock.heap[:] = list(zip(self._arrivals.tolist(), range(self.workers), strict=True))
        heapq.heapify(self.clock.heap)

    def _window(self, epoch: float, end: int, wanted: int) -> int:
        """Handle one window of about `wanted` pushes; return how many to look at for the next."""
        clock, updates = self.clock, self.updates
        workers = self._next(wanted)
        arrivals, looked_at = self._arrivals[workers], len(workers)
        handled = clock.handled(arrivals)
        sizes = self._sizes(self.next, looked_at)
        gradients = np.array([self.method.evaluations(updates + later) for later in range(looked_at + 1)])
        begin = handled + clock.pull_seconds
        loads = sizes / self.batches.size
        done = begin + clock.clock.tasks_seconds(workers, self._tasks[workers], loads, gradients[1:])
        seen = np.add.accumulate(np.concatenate(([self.samples_seen], self._samples[workers] * gradients[:-1])))[1:]
        count = min(self._unaffected(arrivals, done + clock.push_seconds), end - self.events)
        # Up to the push that makes the effective passes.
        reached = np.flatnonzero(seen[:count] / self.batches.samples >= epoch - 1e-9)
        count = int(reached[0]) + 1 if len(reached) else count

        self._take(workers[:count], arrivals[:count], handled[:count], begin[:count], done[:count], sizes[:count])
        self.samples_seen = float(seen[count - 1])
        # Where all that was looked at could be handled, the window might have been larger.
        return min(self.workers, 2 * count if count == looked_at else count + count // 4 + 16)

    def _take(self, workers: Ints, arrivals: Floats, handled: Floats, begin: Floats, done: Floats, sizes: Ints) -> None:
        """Count pushes of different workers, in their order, and their next tasks; all arguments are vectors (n,)."""
        clock, count = self.clock, len(workers)
        pushed, order = done + clock.push_seconds, np.arange(self.updates, self.updates + count)
        self.timeline.pushes(workers, arrivals, handled, order - self._versions[workers])
        self.timeline.tasks(workers, handled, begin, done, pushed)
        self._versions[workers], self._samples[workers] = order + 1, sizes
        self._tasks[workers] += 1
        self._arrivals[workers] = pushed
        self.seconds = clock.free = float(handled[-1])
        clock.nbytes += count * clock.task_bytes
        self.updates += count
        self.events += count
        self.next += count

    def _next(self, wanted: int) -> Ints:
        """Return the workers whose pushes come next, about as many as wanted, in the order of their events."""
        if wanted < self.workers:
            among = np.argpartition(self._arrivals, wanted)[: wanted + 1]
            # Of pushes that arrive at the same second some may not be among these.
            among = among[self._arrivals[among] < self._arrivals[among].max()]
            if len(among):
                return among[np.lexsort((among, self._arrivals[among]))]
        return np.argsort(self._arrivals, kind="stable")

    def _unaffected(self, arrivals: Floats, pushed: Floats) -> int:
        """Return how many pushes are handled before one that follows from another of them arrives."""
        # At the same second the number of the worker decides: left to the next window, which sorts.
        late = np.flatnonzero(arrivals[1:] >= np.minimum.accumulate(pushed)[:-1])
        return int(late[0]) + 1 if len(late) else len(arrivals)

    def _sizes(self, first: int, count: int) -> Ints:
        """Return the samples of batches `first`, `first + 1`, ..."""
        places = np.arange(first, first + count) % self.batches.per_epoch
        return np.minimum(self.batches.size, self.batches.samples - places * self.batches.size)
