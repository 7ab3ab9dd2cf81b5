"""A parameter server on a process of its own, with one process for each worker.

The server handles messages one at a time, in order of arrival. A thread for each worker only receives; everything else
(update, reply, evaluation, checkpoint) happens in the main thread. While the server evaluates, the clock stands: each
worker gets at most the gradient it was computing for free.

At a barrier the server waits for every push that is on its way, sends each round's broadcast to all workers, and gives
each a shard of the training set to answer for. A lost worker's shard goes to whoever is free; answers are added up in
the order of the shards, so that it does not matter who gave them.

The weights, and the backups of methods that keep them, lie in CPU memory, also when workers compute on GPUs.
"""

from __future__ import annotations

import datetime
import logging
import queue
import threading
import time
from typing import Any

import torch
from torch import Tensor
from torch.distributed import Work

from algorithms.base import Message, ParameterServer, Round, Step, shard_range
from runner.gradients.replica import Replica, running_average
from runner.loop.barrier import next_barrier, sum_messages
from runner.loop.batches import Batches, Leases
from runner.loop.clock import Clock
from runner.loop.executor import Executor
from runner.loop.stop import PeerLost
from runner.loop.train_control import TrainControl
from runner.processes.child import FindLost
from runner.processes.links import Link, reason
from runner.processes.message_buffer import BATCH, RESTORE, ROUND, SHARD, STOP, MessageBuffer
from runner.processes.worker import STATISTICS, push_fields
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Activity

log = logging.getLogger("dcrun")

POLL = 0.5
"""Seconds between two looks at who was lost while no message comes."""
STOP_TIMEOUT = datetime.timedelta(seconds=5)
"""How long a worker is given to take the message that the run is over."""


class Connection:
    """The server's end of one worker: link, buffers, and what the worker is at."""

    def __init__(self, link: Link, pull: dict[str, int], push: dict[str, int]) -> None:
        self.link = link
        self.outbox = MessageBuffer(pull)
        self.inbox = MessageBuffer(push)
        self.expected = self.inbox
        self.sending: Work | None = None
        self.since = 0.0
        self.owing = threading.Semaphore(0)
        self.version = 0
        self.replied = 0.0
        self.alive = True
        self.taking: list[int] = []


class ProcessServer(Executor):
    """Serve a parameter-server method to worker processes.

    Args:
        server: the method's server half; started here, on a CPU copy of the replica's weights.
        links: a link to each worker.
        replica: holds the initial weights.
        batches: the run's batches, leased one by one.
        control: counts, evaluation, checkpoints.
        activity: what each worker did when.
        find_lost: see `FindLost`.
        clock: delays that are acted with real sleeps.
        recorder: writes down the order of messages; None where nobody asked for it.
        compiled: fuse the server's update rule.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        links: list[Link],
        replica: Replica,
        batches: Batches,
        control: TrainControl,
        activity: Activity,
        find_lost: FindLost = list,
        clock: Clock,
        recorder: Recorder | None = None,
        compiled: bool = False,
    ) -> None:
        self.server = server
        self.control = control
        self.activity = activity
        self.find_lost = find_lost
        self.server_seconds = clock.server_seconds
        self.recorder = recorder
        self.workers_lost = 0
        self._resumed = False
        server.start(replica.weights.to("cpu", copy=True), len(links), compiled)
        self.statistics = replica.initial_statistics().to("cpu")
        self.totals = torch.zeros(3, dtype=torch.float64)
        self.batches = batches
        self.leases = Leases(batches)
        self.leases.quota = next_barrier(server, -1)
        self.rounds = server.rounds(replica.weights.numel())
        self.restoring = server.restoring(replica.weights.numel())
        layout = server.layout(replica.weights.numel())
        self.shard_state_sizes = layout.shard_state
        self.samples = batches.samples
        push = push_fields(layout.push | layout.mirror, self.statistics.numel())
        self.connections = [Connection(link, layout.pull, push) for link in links]
        self.fields = list(layout.push | layout.mirror)
        self.arrivals: queue.Queue[tuple[int, float, str | None]] = queue.Queue()

    def run(self) -> None:
        """Serve until every batch is done.

        Raises:
            Stop: the run diverged or was asked to stop.
            PeerLost: all workers are gone.
        """
        for worker in range(len(self.connections)):
            threading.Thread(target=self._receive, args=(worker,), daemon=True, name=f"worker {worker}").start()
        control = self.control
        control.start()
        try:
            if self.recorder is not None:
                self.recorder.begin()
                if self._resumed:
                    self.recorder.resumed(version=control.updates, time=control.wall())
            for worker in range(len(self.connections)):
                if self._resumed and self.restoring:
                    self._restore(worker)
                self._occupied()
                self._reply(worker)
            while not self.leases.finished:
                if not self.leases.at_barrier:
                    self._next()
                    continue
                self._meet()
                if control.due():
                    self._evaluate(False)
        finally:
            control.pause()
            if self.recorder is not None:
                self.recorder.flush()
            self._stop()

    def _receive(self, worker: int) -> None:
        connection = self.connections[worker]
        while True:
            # Only while the worker owes a message: a thread in a transfer when Python ends can abort the process.
            connection.owing.acquire()
            try:
                connection.link.receive(connection.expected.raw)
            except RuntimeError as error:
                self.arrivals.put((worker, time.perf_counter(), str(error)))
                return
            self.arrivals.put((worker, time.perf_counter(), None))

    def _next(self) -> None:
        """Handle the next message, or whatever else has come up, and evaluate where that is due."""
        self._take()
        finished = self.leases.finished
        if self.control.due(finished):
            self._evaluate(finished)

    def _take(self) -> None:
        """Handle the next message, or whatever else has come up."""
        for worker, fault in self.find_lost():
            self._drop(worker, fault)
        try:
            worker, arrived, error = self.arrivals.get(timeout=POLL)
        except queue.Empty:
            return
        if error is not None:
            self._drop(worker, f"its connection broke: {reason(error)}")
        elif self.connections[worker].alive:
            self._handle(worker, arrived)

    def _handle(self, worker: int, arrived: float) -> None:
        """Take in a push and answer it."""
        connection, begin = self.connections[worker], time.perf_counter()
        pulled, version, batch = connection.version, self.control.updates, self.leases.held[worker]
        compute = float(connection.inbox.numbers[3])
        clipped = compute
        try:
            self._occupied()
            clipped = self._push(worker, arrived, compute)
            self._reply(worker)
        finally:
            # Also what made the loss infinite is part of the record.
            if self.recorder is not None:
                self.recorder.push(
                    worker,
                    pulled=pulled,
                    version=version,
                    batch=batch,
                    time=self.control.seconds,
                    compute=clipped,
                    waited=begin - arrived,
                    served=time.perf_counter() - begin,
                )

    def _occupied(self) -> None:
        """Act the time for which a message occupies the server."""
        if self.server_seconds:
            time.sleep(self.server_seconds)

    def _push(self, worker: int, arrived: float, compute: float) -> float:
        """Return how many seconds of the run's clock, which stands at evaluations, went by while it was computed."""
        connection, buffer = self.connections[worker], self.connections[worker].inbox
        batch = self.leases.done(worker)
        staleness = self.control.updates - connection.version
        rate = self.control.rate()
        message = {name: buffer.tensors[name] for name in self.fields}
        self.server.push(worker, message, Step(lr=rate.lr, decay=rate.decay, staleness=staleness))
        if self.statistics.numel():
            running_average(self.statistics, buffer.tensors[STATISTICS])
        self.totals.add_(buffer.numbers[:3])
        evaluations = self.server.evaluations(self.control.updates)
        now = self.control.wall()
        seconds = self.activity.round_trip(
            worker, connection.replied, now - (time.perf_counter() - arrived), now, compute
        )
        self.activity.staleness(worker, staleness)
        connection.since = now
        self.control.advance(len(batch.ids) * evaluations, now, self.totals, staleness)
        return seconds

    def _meet(self) -> None:
        """Hold the barrier that all workers have come to."""
        begin, updates = self.control.wall(), self.control.updates
        for worker in self._living():
            self.activity.span(worker, "wait", min(self.connections[worker].since, begin), begin)
        for number, part in enumerate(self.rounds):
            message = self.server.broadcast(number)
            if part.answer:
                answers = self._ask(number, part, message)
                self.server.collect(number, sum_messages(answers[shard] for shard in sorted(answers)))
            else:
                for worker in self._living():
                    self._send(worker, (ROUND, number, -1, self.leases.next), part.broadcast, message)
        now = self.control.wall()
        if self.recorder is not None:
            self.recorder.barrier(version=updates, time=now)
        self.control.spend(self.batches.samples * self.server.barrier_cost.gradients, now)
        self.leases.quota = next_barrier(self.server, updates)
        for worker in sorted(self.leases.idle):
            self._reply(worker)

    def _ask(self, number: int, part: Round, message: Message) -> dict[int, Message]:
        """Return the answers to a round by shard: each worker's own, and others' where their workers are lost.

        Raises:
            PeerLost: all workers are gone.
        """
        answers: dict[int, Message] = {}
        asked: dict[int, int] = {}
        orphans: list[int] = []
        inboxes = [MessageBuffer(part.answer) for _ in self.connections]
        following_batch = self.leases.next

        def ask(worker: int, shard: int) -> None:
            connection = self.connections[worker]
            asked[worker] = shard
            connection.expected = inboxes[worker]
            connection.replied = self.control.wall()
            self._send(worker, (ROUND, number, shard, following_batch), part.broadcast, message)
            connection.owing.release()

        def drop(worker: int, fault: str) -> None:
            self._drop(worker, fault)
            if worker in asked:
                orphans.append(asked.pop(worker))

        for worker, connection in enumerate(self.connections):
            if connection.alive:
                ask(worker, worker)
            else:
                orphans.append(worker)
        while len(answers) < len(self.connections):
            for worker, fault in self.find_lost():
                drop(worker, fault)
            for worker in self._living():
                if orphans and worker not in asked:
                    ask(worker, orphans.pop(0))
            try:
                worker, arrived, error = self.arrivals.get(timeout=POLL)
            except queue.Empty:
                continue
            connection = self.connections[worker]
            if error is not None:
                drop(worker, f"its connection broke: {reason(error)}")
            elif connection.alive:
                self._occupied()
                answers[asked.pop(worker)] = {name: part.clone() for name, part in inboxes[worker].tensors.items()}
                connection.expected = connection.inbox
                now, compute = self.control.wall(), float(inboxes[worker].numbers[3])
                there = now - (time.perf_counter() - arrived)
                self.activity.round_trip(worker, connection.replied, there, now, compute)
        return answers

    def _living(self) -> list[int]:
        return [worker for worker, connection in enumerate(self.connections) if connection.alive]

    def _restore(self, worker: int) -> None:
        """Give a worker the state that it has in a run that goes on."""
        self._send(worker, (RESTORE, 0, 0, 0), self.restoring, self.server.restore(worker))

    def _send(self, worker: int, header: tuple[int, ...], sizes: dict[str, int], message: Message) -> None:
        """Send a buffer of another layout than a pull's, announced by a header."""
        connection = self.connections[worker]
        if connection.sending is not None:
            connection.sending.wait()
        connection.outbox.header.copy_(torch.tensor(header))
        buffer = MessageBuffer(sizes)
        buffer.fill(message)
        try:
            connection.link.send(connection.outbox.raw).wait()
            connection.link.send(buffer.raw).wait()
        except RuntimeError as error:
            self._broken(worker, error)
        connection.sending = None

    def _reply(self, worker: int) -> None:
        """Answer with fresh weights and a batch; without a batch left the worker idles."""
        connection = self.connections[worker]
        batch = self.leases.lease(worker)
        if batch is None:
            return
        # Before the wait below: a transfer is waited for once.
        self._hand_over(worker)
        if connection.sending is not None:
            connection.sending.wait()
        rate = self.control.rate()
        self.server.announce(Step(lr=rate.lr, decay=rate.decay))
        connection.outbox.fill(self.server.pull(worker))
        connection.outbox.header[0] = BATCH
        connection.outbox.header[1] = batch.number
        connection.outbox.header[2] = self.control.updates
        connection.version = self.control.updates
        connection.replied = self.control.wall()
        try:
            connection.sending = connection.link.send(connection.outbox.raw)
        except RuntimeError as error:
            self._broken(worker, error)
        connection.owing.release()

    def _hand_over(self, worker: int) -> None:
        """Send a worker what it needs to know of the shards of the training set that it is to take over."""
        connection = self.connections[worker]
        while connection.taking:
            shard = connection.taking.pop(0)
            piece = shard_range(self.samples, len(self.connections), shard)
            self._send(worker, (SHARD, shard, 0, 0), self.shard_state_sizes, self.server.shard_state(piece))

    def _broken(self, worker: int, error: RuntimeError) -> None:
        """Have a worker dropped in its turn: a message that is being handled is finished first."""
        self.arrivals.put((worker, time.perf_counter(), str(error)))

    def _drop(self, worker: int, fault: str) -> None:
        """Go on without a worker: its batch goes to an idle one, or to whoever pulls next."""
        connection = self.connections[worker]
        if not connection.alive:
            return
        connection.alive = False
        self.workers_lost += 1
        updates = self.control.updates
        if self.recorder is not None:
            self.recorder.lost(worker, version=updates, time=self.control.wall())
        held = self.leases.held.get(worker)
        waking = self.leases.release(worker)
        if not any(other.alive for other in self.connections):
            raise PeerLost(f"all workers are lost; the last one was worker {worker} ({fault}), after update {updates}")
        batch = "it held no batch" if held is None else f"its batch {held} is handed out again"
        if inherited := self.leases.reassign_shards(worker):
            heir, shards = inherited
            self.connections[heir].taking += shards
            batch += f"; worker {heir} takes over its shard of the training set"
        log.warning("worker %d lost after update %d (%s); %s", worker, updates, fault, batch)
        for other in waking:
            self._reply(other)

    def _evaluate(self, finished: bool) -> None:
        if self.server.at_rest:
            quota, self.leases.quota = self.leases.quota, 0
            while self.leases.held:
                self._take()
            self.leases.quota = quota
        self.control.evaluate(self.server.solution(), self.statistics, self.totals, self, finished)
        if self.server.at_rest:
            for worker in sorted(self.leases.idle):
                self._reply(worker)

    def _stop(self) -> None:
        """Tell who waits for work that there is none; the others notice that the server is gone."""
        for worker in self.leases.idle:
            connection = self.connections[worker]
            try:
                if connection.sending is not None:
                    connection.sending.wait(STOP_TIMEOUT)
                connection.outbox.header[0] = STOP
                connection.link.send(connection.outbox.raw).wait(STOP_TIMEOUT)
            except RuntimeError as error:
                log.info("worker %d could not be told to stop: %s", worker, reason(error))

    def columns(self) -> dict[str, float]:
        """Return what goes into a row besides the training control's own columns: nothing."""
        return {}

    def weights(self) -> Tensor:
        """Return the flat weights of the solution, in CPU memory."""
        return self.server.solution()

    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        return self.statistics

    def method_states(self) -> list[Message]:
        """Return the method's state of the server."""
        return [self.server.state()]

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run on processes continues from; gradients being computed are not part of it."""
        return {
            "method": self.server.state(),
            "statistics": self.statistics,
            "totals": self.totals,
            "leases": self.leases.state_dict(),
            "activity": self.activity.state_dict(),
            "workers_lost": self.workers_lost,
            "trace": None if self.recorder is None else self.recorder.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; batches that were being computed are handed out again."""
        self.server.load_state(state["method"])
        self.statistics.copy_(state["statistics"])
        self.totals.copy_(state["totals"])
        self.leases.load_state_dict(state["leases"])
        self.leases.restart()
        for worker, shards in self.leases.shards.items():
            self.connections[worker].taking += shards
        self.activity.load_state_dict(state["activity"])
        self.workers_lost = state["workers_lost"]
        if self.recorder is not None and state["trace"] is not None:
            self.recorder.load_state_dict(state["trace"])
        self._resumed = True
