"""A parameter server on a process of its own, with one process for each worker.

The server handles messages one at a time, in order of arrival. A thread for each worker only receives; everything else
(update, reply, evaluation, checkpoint) happens in the main thread. While the server evaluates, the clock stands: each
worker gets at most the gradient it was computing for free.

The weights, and the backups of methods that keep them, lie in CPU memory, also when workers compute on GPUs.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import Work

from algorithms.base import ParameterServer, Step, Worker
from runner.activity import Activity
from runner.batches import Batches, Leases
from runner.course import Course, PeerLost
from runner.links import Link
from runner.oracle import NetworkOracle
from runner.packet import BATCH, STOP, Packet
from runner.replica import Replica, running_average

log = logging.getLogger("dcrun")

POLL = 0.5
"""Seconds between two looks at who was lost while no message comes."""
STATISTICS = "batch statistics"
"""Field of a push that carries the batch-norm statistics of its batch."""


class Connection:
    """The server's end of one worker: link, buffers, and what the worker is at."""

    def __init__(self, link: Link, pull: dict[str, int], push: dict[str, int]) -> None:
        self.link = link
        self.outbox = Packet(pull)
        self.inbox = Packet(push)
        self.sending: Work | None = None
        self.handled = threading.Semaphore(1)
        self.version = 0
        self.replied = 0.0
        self.idle = True
        self.alive = True


class ProcessServer:
    """Serve a parameter-server method to worker processes.

    Args:
        server: the method's server half; started here, on a CPU copy of the replica's weights.
        links: a link to each worker.
        replica: holds the initial weights.
        batches: the run's batches, leased one by one.
        course: counts, evaluation, checkpoints.
        activity: what each worker did when.
        lost: returns the numbers of workers that were found dead or stuck since it was called last.
        compiled: fuse the server's update rule.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        links: list[Link],
        replica: Replica,
        batches: Batches,
        course: Course,
        activity: Activity,
        lost: Callable[[], list[int]] = list,
        compiled: bool = False,
    ) -> None:
        self.server = server
        self.course = course
        self.activity = activity
        self.lost = lost
        self.workers_lost = 0
        server.start(replica.weights.to("cpu", copy=True), len(links), compiled)
        self.statistics = replica.initial_statistics().to("cpu")
        self.totals = torch.zeros(3, dtype=torch.float64)
        self.leases = Leases(batches)
        layout = server.layout(replica.weights.numel())
        push = push_fields(layout.push, self.statistics.numel())
        self.connections = [Connection(link, layout.pull, push) for link in links]
        self.fields = list(layout.push)
        self.arrivals: queue.Queue[tuple[int, float, str | None]] = queue.Queue()

    def run(self) -> None:
        """Serve until every batch is done.

        Raises:
            Stop: the run diverged or was asked to stop.
            PeerLost: all workers are gone.
        """
        for worker in range(len(self.connections)):
            threading.Thread(target=self._receive, args=(worker,), daemon=True, name=f"worker {worker}").start()
        course = self.course
        course.start()
        try:
            for worker in range(len(self.connections)):
                self._reply(worker)
            while not self.leases.finished:
                self._next()
        finally:
            course.pause()
            self._stop()

    def _receive(self, worker: int) -> None:
        connection = self.connections[worker]
        while True:
            connection.handled.acquire()
            try:
                connection.link.receive(connection.inbox.buffer)
            except RuntimeError as error:
                self.arrivals.put((worker, time.perf_counter(), str(error)))
                return
            self.arrivals.put((worker, time.perf_counter(), None))

    def _next(self) -> None:
        """Handle the next message, or whatever else has come up."""
        for worker in self.lost():
            self._drop(worker)
        try:
            worker, arrived, error = self.arrivals.get(timeout=POLL)
        except queue.Empty:
            if self.course.due():
                self._evaluate(False)
            return
        if error is not None:
            self._drop(worker)
        elif self.connections[worker].alive:
            self._push(worker, arrived)
            self._reply(worker)
            finished = self.leases.finished
            if self.course.due(finished):
                self._evaluate(finished)

    def _push(self, worker: int, arrived: float) -> None:
        connection, packet = self.connections[worker], self.connections[worker].inbox
        batch = self.leases.done(worker)
        staleness = self.course.updates - connection.version
        rate = self.course.rate()
        message = {name: packet.tensors[name] for name in self.fields}
        self.server.push(worker, message, Step(lr=rate.lr, decay=rate.decay, staleness=staleness))
        if self.statistics.numel():
            running_average(self.statistics, packet.tensors[STATISTICS])
        self.totals.add_(packet.numbers[:3])
        seconds = float(packet.numbers[3])
        connection.handled.release()
        now = self.course.wall()
        self._note(worker, now - (time.perf_counter() - arrived), now, seconds)
        self.activity.staleness(worker, staleness)
        self.course.advance(len(batch.ids) * self.server.cost.gradients, now, self.totals, staleness)

    def _note(self, worker: int, arrived: float, now: float, seconds: float) -> None:
        """Note the spans of a round trip: half of what was not computing went by on the way there, half on the way back."""
        begin = self.connections[worker].replied
        arrived = min(max(arrived, begin), now)
        seconds = min(seconds, arrived - begin)
        half = (arrived - begin - seconds) / 2
        self.activity.span(worker, "transfer", begin, begin + half)
        self.activity.span(worker, "compute", begin + half, begin + half + seconds)
        self.activity.span(worker, "transfer", begin + half + seconds, arrived)
        self.activity.span(worker, "wait", arrived, now)

    def _reply(self, worker: int) -> None:
        """Answer with fresh weights and a batch; without a batch left the worker idles."""
        connection = self.connections[worker]
        batch = self.leases.lease(worker)
        connection.idle = batch is None
        if batch is None:
            return
        if connection.sending is not None:
            connection.sending.wait()
        connection.outbox.fill(self.server.pull(worker))
        connection.outbox.header[0] = BATCH
        connection.outbox.header[1] = batch.number
        connection.version = self.course.updates
        connection.replied = self.course.wall()
        try:
            connection.sending = connection.link.send(connection.outbox.buffer)
        except RuntimeError:
            self._drop(worker)

    def _drop(self, worker: int) -> None:
        """Go on without a worker: its batch goes to an idle one, or to whoever pulls next."""
        connection = self.connections[worker]
        if not connection.alive:
            return
        connection.alive = False
        self.workers_lost += 1
        self.leases.forfeit(worker)
        log.warning("worker %d lost after update %d; going on with the others", worker, self.course.updates)
        if not any(other.alive for other in self.connections):
            raise PeerLost(f"all workers are lost; the last one was worker {worker}, after update {self.course.updates}")
        for other, candidate in enumerate(self.connections):
            if candidate.alive and candidate.idle and self.leases.returned:
                self._reply(other)

    def _evaluate(self, finished: bool) -> None:
        self.course.evaluate(self.server.solution(), self.statistics, self.totals, self, finished)

    def _stop(self) -> None:
        for connection in self.connections:
            if connection.alive and connection.idle:
                if connection.sending is not None:
                    connection.sending.wait()
                connection.outbox.header[0] = STOP
                connection.link.send(connection.outbox.buffer).wait()

    def weights(self) -> Tensor:
        """Return the flat weights of the solution, in CPU memory."""
        return self.server.solution()

    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        return self.statistics

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run on processes continues from; gradients being computed are not part of it."""
        return {
            "method": self.server.state(),
            "statistics": self.statistics,
            "totals": self.totals,
            "leases": self.leases.state_dict(),
            "activity": self.activity.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; batches that were being computed are handed out again."""
        self.server.load_state(state["method"])
        self.statistics.copy_(state["statistics"])
        self.totals.copy_(state["totals"])
        self.leases.load_state_dict(state["leases"])
        for worker in list(self.leases.held):
            self.leases.forfeit(worker)
        self.activity.load_state_dict(state["activity"])


def push_fields(push: dict[str, int], statistics: int) -> dict[str, int]:
    """Return the fields of a worker's packet: the method's, and the batch-norm statistics where the network has any."""
    return push | ({STATISTICS: statistics} if statistics else {})


def serve_worker(
    half: Worker, link: Link, *, pull: dict[str, int], push: dict[str, int], oracle: NetworkOracle, batches: Batches
) -> None:
    """Work for a server until it says stop: receive weights and a batch number, compute, push.

    Raises:
        RuntimeError: the server is gone.
    """
    replica = oracle.replica
    inbox = Packet(pull, pinned=oracle.device.type == "cuda")
    outbox = Packet(push_fields(push, replica.statistics.numel()), pinned=oracle.device.type == "cuda")
    while True:
        link.receive(inbox.buffer)
        if int(inbox.header[0]) == STOP:
            return
        begin = time.perf_counter()
        batch = batches.batch(int(inbox.header[1]))
        message = half.work(oracle, inbox.tensors, batch)
        outbox.fill(message)
        if replica.statistics.numel():
            outbox.tensors[STATISTICS].copy_(replica.statistics)
        outbox.numbers[:3].copy_(oracle.totals)
        oracle.totals.zero_()
        outbox.numbers[3] = time.perf_counter() - begin
        link.send(outbox.buffer).wait()
