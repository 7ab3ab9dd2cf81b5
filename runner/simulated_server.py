"""A parameter server and its workers in one process, on a virtual clock.

Every message is an event with a time. A worker computes on what it pulled, its push travels to the server, which
handles one message at a time in order of arrival (ties: by worker), and answers with a fresh pull. Since a gradient
depends only on what was pulled and on the leased batch, it is evaluated when its push is handled: no gradient is ever in
flight, and a server that keeps backups needs no further copy of the weights.

A push and the pull that follows it are one message and its answer, as in a request with a reply; the papers' algorithms
pull right after they push too.
"""

from __future__ import annotations

import heapq
from typing import Any

import torch

from algorithms.base import Message, ParameterServer, Step
from runner.activity import Activity
from runner.batches import Batches, Leases
from runner.clock import Clock
from runner.course import Course
from runner.oracle import NetworkOracle
from runner.replica import running_average

FLOAT_BYTES = 4


class SimulatedServer:
    """Run a parameter-server method on simulated workers.

    Args:
        server: the method's server half; started here, on a copy of the replica's weights.
        workers: number of workers M.
        oracle: gradients.
        batches: the run's batches, leased one by one.
        clock: virtual durations.
        course: counts, evaluation, checkpoints.
        activity: what each worker did when.
        compiled: fuse the server's update rule.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        workers: int,
        oracle: NetworkOracle,
        batches: Batches,
        clock: Clock,
        course: Course,
        activity: Activity,
        compiled: bool = False,
    ) -> None:
        self.server = server
        self.oracle = oracle
        self.batches = batches
        self.clock = clock
        self.course = course
        self.activity = activity
        replica = oracle.replica
        server.start(replica.weights.clone(), workers, compiled)
        self.halves = [server.worker(m) for m in range(workers)]
        self.statistics = replica.initial_statistics()
        self.leases = Leases(batches)
        n = replica.weights.numel()
        layout = server.layout(n)
        self.pull_seconds = clock.transfer_seconds(FLOAT_BYTES * sum(layout.pull.values()))
        self.push_seconds = clock.transfer_seconds(FLOAT_BYTES * sum(layout.push.values()))
        # What each worker pulled last, where the server does not keep it itself.
        self.copies: list[Message] = [
            {} if server.sent(m) else {name: server.w.new_zeros(size) for name, size in layout.pull.items()}
            for m in range(workers)
        ]
        self.version = [0] * workers
        self.tasks = [0] * workers
        self.free = 0.0
        self.events: list[tuple[float, int]] = []
        self._resumed = False

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        course = self.course
        course.start()
        if not self._resumed:
            for worker in range(len(self.halves)):
                self._pull(worker, handled=self._handle(self.clock.transfer_seconds(0)))
        while self.events:
            arrival, worker = heapq.heappop(self.events)
            handled = self._handle(arrival)
            self.activity.span(worker, "wait", arrival, handled)
            self._push(worker, handled)
            self._pull(worker, handled)
            finished = not self.events
            if course.due(finished):
                course.evaluate(self.weights(), self.statistics, self.oracle.totals, self, finished)
        course.pause()

    def _handle(self, arrival: float) -> float:
        self.free = max(arrival, self.free) + self.clock.server_seconds
        return self.free

    def _push(self, worker: int, handled: float) -> None:
        batch = self.leases.done(worker)
        message = self.halves[worker].work(self.oracle, self.server.sent(worker) or self.copies[worker], batch)
        staleness = self.course.updates - self.version[worker]
        rate = self.course.rate()
        self.server.push(worker, message, Step(lr=rate.lr, decay=rate.decay, staleness=staleness))
        running_average(self.statistics, self.oracle.replica.statistics)
        self.activity.staleness(worker, staleness)
        gradients = len(batch.ids) * self.server.cost.gradients
        self.course.advance(gradients, handled, self.oracle.totals, staleness)

    def _pull(self, worker: int, handled: float) -> None:
        batch = self.leases.lease(worker)
        if batch is None:
            return
        message = self.server.pull(worker)
        for name, copy in self.copies[worker].items():
            copy.copy_(message[name])
        self.version[worker] = self.course.updates
        begin = handled + self.pull_seconds
        share = len(batch.ids) / self.batches.size
        end = begin + self.clock.compute_seconds(worker, self.tasks[worker], share, self.server.cost.gradients)
        self.tasks[worker] += 1
        arrival = end + self.push_seconds
        self.activity.span(worker, "transfer", handled, begin)
        self.activity.span(worker, "compute", begin, end)
        self.activity.span(worker, "transfer", end, arrival)
        heapq.heappush(self.events, (arrival, worker))

    def weights(self) -> torch.Tensor:
        """Return the flat weights of the solution."""
        return self.server.solution()

    def running_statistics(self) -> torch.Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        return self.statistics

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "method": self.server.state(),
            "copies": self.copies,
            "statistics": self.statistics,
            "totals": self.oracle.totals,
            "leases": self.leases.state_dict(),
            "version": self.version,
            "tasks": self.tasks,
            "free": self.free,
            "events": self.events,
            "activity": self.activity.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        self.server.load_state(state["method"])
        for copies, saved in zip(self.copies, state["copies"], strict=True):
            for name, copy in copies.items():
                copy.copy_(saved[name])
        self.statistics.copy_(state["statistics"])
        self.oracle.totals.copy_(state["totals"])
        self.leases.load_state_dict(state["leases"])
        self.version = list(state["version"])
        self.tasks = list(state["tasks"])
        self.free = state["free"]
        self.events = [(arrival, worker) for arrival, worker in state["events"]]
        self.activity.load_state_dict(state["activity"])
        self._resumed = True
