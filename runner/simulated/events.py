"""Two sources of what happens when on a simulated parameter server: a virtual clock, and a recorded trace.

A source answers one question, which message the server handles next, and notes what the workers did meanwhile. What is
computed, and when a worker pulls, is the executor's: it is the same for both.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from algorithms.base import Layout, Round, message_bytes
from runner.loop.clock import Clock
from runner.loop.philox import Floats
from runner.run_folder.timeline import Timeline
from runner.run_folder.trace import BARRIER, LOST, PUSH, RESUMED, STOPPED, Record


class Event(NamedTuple):
    """Something the server has to handle.

    Attributes:
        kind: `PUSH`: a gradient of a worker; `STOPPED`: it has dropped what it computed; `LOST`: it is gone; `RESUMED`:
            all workers begin anew.
        worker: its number, from 0.
        time: the run's seconds when the server has handled it.
        record: what a trace says about it, to be compared; None on a clock.
    """

    kind: str
    worker: int
    time: float
    record: Record | None = None


class Events(Protocol):
    """Says what the server handles next."""

    def begin(self) -> float:
        """Return when the server has handled the next of the first pulls, called once for each worker."""
        ...

    def pulled(self, worker: int, loads: Sequence[float], now: float, gradients: float) -> None:
        """Note that a worker got weights and the batches of its next steps at the run's second `now`.

        Args:
            worker: its number, from 0.
            loads: each batch's samples relative to a full one.
            now: seconds of the run.
            gradients: gradient evaluations per sample.
        """
        ...

    def recall(self, worker: int, now: float) -> bool:
        """Note that a worker is told at second `now` to stop; return whether it will: it may have finished by then."""
        ...

    def meet(self, rounds: Sequence[Round], loads: Sequence[float], gradients: float) -> float | None:
        """Return when a barrier that all workers have come to is over; None if something else happens first.

        Args:
            rounds: the rounds of the barrier.
            loads: the samples of each worker's shard relative to a full batch.
            gradients: gradient evaluations per sample in all rounds with answers.
        """
        ...

    @property
    def over(self) -> bool:
        """Whether there are no more events."""
        ...

    def next(self) -> Event:
        """Return the next event."""
        ...

    def order(self) -> Iterable[int]:
        """Return the workers that compute, in the order in which the server will handle their pushes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the coming events depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


class TaskTimes(NamedTuple):
    """The seconds of the run at which a worker's task goes from one stretch to the next.

    Attributes:
        pulled: when the server sent weights and a batch.
        begin: when they arrived.
        end: when the gradient is computed, or dropped.
        arrival: when the server has the push, or the request for another pull.
    """

    pulled: float
    begin: float
    end: float
    arrival: float


class ClockEvents:
    """Events on a virtual clock: a worker computes on what it pulled, its push travels, the server takes one at a time.

    Args:
        clock: virtual durations.
        timeline: what each worker did when.
        layout: sizes of the messages.
        workers: number of workers M.
        stops: whether workers may be told to stop.
    """

    def __init__(self, clock: Clock, timeline: Timeline, *, layout: Layout, workers: int, stops: bool = False) -> None:
        self.clock = clock
        self.timeline = timeline
        self.pull_seconds = clock.transfer_seconds(message_bytes(layout.pull))
        self.push_seconds = clock.transfer_seconds(message_bytes(layout.push))
        # What workers and server have sent each other; a request has no bytes.
        self.nbytes = 0
        self.push_bytes = message_bytes(layout.push)
        self.task_bytes = message_bytes(layout.pull) + self.push_bytes
        self.tasks = [0] * workers
        self.since = [0.0] * workers
        # The second from which the server is free: it handles one message at a time.
        self.free = 0.0
        self.heap: list[tuple[float, int]] = []
        # If workers may be told to stop: by worker, the task that it is at, and those who will drop theirs.
        self.stops = stops
        self.doing: dict[int, TaskTimes] = {}
        self.stopping = set[int]()

    def begin(self) -> float:
        """See `Events.begin`: a request is a message without tensors."""
        return self._handle(self.clock.transfer_seconds(0))

    def pulled(self, worker: int, loads: Sequence[float], now: float, gradients: float) -> None:
        """See `Events.pulled`: each batch is a task of the clock."""
        end = begin = now + self.pull_seconds
        for load in loads:
            end += self._compute(worker, load, gradients)
        arrival = end + self.push_seconds
        if self.stops:
            self.doing[worker] = TaskTimes(now, begin, end, arrival)
        else:
            # From its pull to its push, noted as a whole: nothing that happens meanwhile changes its times.
            self.timeline.task(worker, now, begin, end, arrival)
        self.nbytes += self.task_bytes
        # Only the time is kept: the gradient is evaluated when its push is handled. It depends on what was pulled and
        # on the batch, not on when it is computed, so no gradient has to be stored while it is in flight.
        heapq.heappush(self.heap, (arrival, worker))

    def recall(self, worker: int, now: float) -> bool:
        """See `Events.recall`: the order is a message without tensors, and so is the request for another pull."""
        task, seconds = self.doing[worker], self.clock.transfer_seconds(0)
        # Not before the weights that it was sent, which have a longer way.
        heard = max(now + seconds, task.begin)
        # Who would be done at that very second is stopped too: without a network no push is staler than the method
        # allows.
        if heard > task.end:
            return False
        self.heap.remove((task.arrival, worker))
        self.heap.append((heard + seconds, worker))
        heapq.heapify(self.heap)
        self.doing[worker] = task._replace(end=heard, arrival=heard + seconds)
        self.stopping.add(worker)
        # It pushes nothing.
        self.nbytes -= self.push_bytes
        return True

    def meet(self, rounds: Sequence[Round], loads: Sequence[float], gradients: float) -> float:
        """See `Events.meet`: it begins when the last push is handled, and waits in each round for the slowest.

        The server sends to all at once, as it does where workers pull, and handles one answer at a time.
        """
        # The second at which the last push was handled: no worker computes from here on, and the server is free.
        now, answered = self.free, [part for part in rounds if part.answer]
        for worker, since in enumerate(self.since):
            self.timeline.span(worker, "wait", since, now)
        for part in rounds:
            self.nbytes += len(loads) * (message_bytes(part.broadcast) + message_bytes(part.answer))
            heard = now + self.clock.transfer_seconds(message_bytes(part.broadcast))
            arrivals = []
            for worker, load in enumerate(loads):
                self.timeline.span(worker, "transfer", now, heard)
                if not part.answer:
                    continue
                # The cost is of all rounds with answers together, so a round has its share.
                end = heard + self._compute(worker, load, gradients / len(answered))
                arrival = end + self.clock.transfer_seconds(message_bytes(part.answer))
                self.timeline.span(worker, "compute", heard, end)
                self.timeline.span(worker, "transfer", end, arrival)
                arrivals.append((arrival, worker))
            # The server takes answers in the order of arrival; their sum is in the order of the shards all the same.
            for arrival, _ in sorted(arrivals):
                self._handle(arrival)
            now = self.free = max(heard, self.free)
            # Nobody goes on to the next round before the slowest answer is handled.
            for arrival, worker in arrivals:
                self.timeline.span(worker, "wait", arrival, now)
        return now

    def _compute(self, worker: int, load: float, gradients: float) -> float:
        """Return how long a worker's next task takes."""
        self.tasks[worker] += 1
        return self.clock.compute_seconds(worker, self.tasks[worker] - 1, load, gradients)

    def handled(self, arrivals: Floats) -> Floats:
        """Return when the server has handled messages that arrive one after the other, as `next` would say; no more."""
        if not self.clock.server_seconds:
            return np.maximum(arrivals, self.free)
        free, found = self.free, list[float]()
        for arrival in arrivals.tolist():
            free = (arrival if arrival > free else free) + self.clock.server_seconds
            found.append(free)
        return np.array(found)

    @property
    def over(self) -> bool:
        """See `Events.over`: a clock goes on for as long as there are batches."""
        return False

    def next(self) -> Event:
        """See `Events.next`; ties go to the worker with the smaller number."""
        arrival, worker = heapq.heappop(self.heap)
        handled = self._handle(arrival)
        stopped = worker in self.stopping
        if self.stops:
            self._note(worker, self.doing.pop(worker), "stopped" if stopped else "compute")
            self.stopping.discard(worker)
        self.timeline.span(worker, "wait", arrival, handled)
        # From here on the worker waits, if a barrier is next and it gets no batch.
        self.since[worker] = handled
        return Event(STOPPED if stopped else PUSH, worker, handled)

    def _note(self, worker: int, task: TaskTimes, what: str) -> None:
        """Note a task that is over: only now is it known when it ended."""
        self.timeline.span(worker, "transfer", task.pulled, task.begin)
        self.timeline.span(worker, what, task.begin, task.end)
        self.timeline.span(worker, "transfer", task.end, task.arrival)

    def order(self) -> Iterable[int]:
        """See `Events.order`."""
        return (worker for _, worker in sorted(self.heap) if worker not in self.stopping)

    def _handle(self, arrival: float) -> float:
        self.free = (arrival if arrival > self.free else self.free) + self.clock.server_seconds
        return self.free

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the events depends on."""
        # The clock's own draws need no state: they follow from the number of the task.
        state = {"tasks": list(self.tasks), "since": list(self.since), "free": self.free, "heap": list(self.heap)}
        if not self.stops:
            return state
        doing = {worker: list(task) for worker, task in self.doing.items()}
        return state | {"doing": doing, "stopping": sorted(self.stopping)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.tasks = list(state["tasks"])
        # Files from before there were barriers have no `since`.
        self.since = list(state.get("since", self.since))
        self.free = state["free"]
        # The saved list is in the order of a heap already.
        self.heap = [(arrival, worker) for arrival, worker in state["heap"]]
        self.doing = {int(worker): TaskTimes(*task) for worker, task in state.get("doing", {}).items()}
        self.stopping = set(state.get("stopping", ()))


class TraceEvents:
    """The events of a recorded run, at the times at which they happened there.

    Args:
        records: of the trace.
        timeline: what each worker did when.
        workers: number of workers M.
    """

    def __init__(self, records: list[Record], timeline: Timeline, *, workers: int) -> None:
        self.records = records
        self.timeline = timeline
        self.position = 0
        # A trace does not say when an answer left: it left when the push before it had been handled.
        self.replied = [0.0] * workers

    def begin(self) -> float:
        """See `Events.begin`."""
        # A trace has no pulls: all workers get their first batch at the run's second 0.
        return 0.0

    def pulled(self, worker: int, loads: Sequence[float], now: float, gradients: float) -> None:
        """See `Events.pulled`."""
        self.replied[worker] = now

    def recall(self, worker: int, now: float) -> bool:
        """See `Events.recall`: the trace says whether and when it stopped."""
        return False

    def meet(self, rounds: Sequence[Round], loads: Sequence[float], gradients: float) -> float | None:
        """See `Events.meet`: workers may be lost before it is over, or the run stopped."""
        # The barrier of the recording may have been cut short: the executor handles what happened instead.
        if self.over or self.records[self.position].kind != BARRIER:
            return None
        record = self.records[self.position]
        self.position += 1
        return record.time

    @property
    def over(self) -> bool:
        """See `Events.over`."""
        return self.position == len(self.records)

    def next(self) -> Event:
        """See `Events.next`."""
        record = self.records[self.position]
        # Where the next event is read from if the run goes on from a checkpoint made after this one.
        self.position += 1
        if record.kind in (PUSH, STOPPED):
            arrived, what = record.time - record.waited, "compute" if record.kind == PUSH else "stopped"
            replied = self.replied[record.worker]
            self.timeline.round_trip(record.worker, replied, arrived, record.time, record.compute, what)
        return Event(record.kind, record.worker, record.time, record)

    def order(self) -> Iterable[int]:
        """See `Events.order`; a worker that is lost or stopped before its next push is left out."""
        found = set()
        for position in range(self.position, len(self.records)):
            record = self.records[position]
            if record.kind == RESUMED or len(found) == len(self.replied):
                return
            if record.kind in (PUSH, LOST, STOPPED) and record.worker not in found:
                found.add(record.worker)
                if record.kind == PUSH:
                    yield record.worker

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the events depends on."""
        return {"position": self.position, "replied": list(self.replied)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.position = state["position"]
        self.replied = list(state["replied"])
