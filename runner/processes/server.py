"""A parameter server on a process of its own, with one process for each worker.

The server handles messages one at a time, in order of arrival. A thread for each worker only receives
(`runner.processes.connections`); everything else (update, reply, evaluation, checkpoint) happens in the main thread, so
no lock guards the weights. While the server evaluates, the clock stands: each worker gets at most the gradient it was
computing for free.

At a barrier the server waits for every push that is on its way, sends each round's broadcast to all workers, and gives
each a shard of the training set to answer for (`runner.processes.barrier_round`). Answers are added up in the order of
the shards, so that it does not matter who gave them.

A worker that is lost costs the batch that it held, which is handed out again, and nothing else, until none is left.

The weights, and the backups of methods that keep them, lie in CPU memory, also when workers compute on GPUs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from algorithms.base import Batch, Message, ParameterServer
from runner.gradients.replica import Replica
from runner.loop.barrier import sum_messages
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.server_base import ServerBase
from runner.loop.stop import PeerLost
from runner.loop.train_control import TrainControl
from runner.processes.barrier_round import BarrierRound
from runner.processes.child import FindLost
from runner.processes.connections import Connections
from runner.processes.links import Link
from runner.processes.message_buffer import BATCH, DROPPED, KEEP, RESTORE, SHARD
from runner.processes.worker import BATCHES, STATISTICS, pull_fields, push_fields
from runner.processes.worker_states import gather_states
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Timeline

log = logging.getLogger("dcrun")


class ProcessServer(ServerBase):
    """Serve a parameter-server method to worker processes.

    Args:
        server: the method's server half; started here, on a CPU copy of the replica's weights.
        links: a link to each worker.
        replica: holds the initial weights.
        batches: the run's batches, leased one by one.
        control: counts, evaluation, checkpoints.
        timeline: what each worker did when.
        find_lost: see `FindLost`.
        clock: delays that are acted with real sleeps.
        recorder: writes down the order of messages; None if nobody asked for it.
        compiled: fuse the server's update rule.
        check_refusal: raises what a worker left to be said before it ended, see `runner.processes.refusal`.
        measured: see `ServerBase`.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        links: list[Link],
        replica: Replica,
        batches: Batches,
        control: TrainControl,
        timeline: Timeline,
        find_lost: FindLost = list,
        clock: Clock,
        recorder: Recorder | None = None,
        compiled: bool = False,
        check_refusal: Callable[[], None] = lambda: None,
        measured: Sequence[str] = (),
    ) -> None:
        replica_weights = replica.weights
        super().__init__(
            server,
            # A copy on a CPU as well: an evaluation writes to the replica, the server must not.
            weights=replica_weights.to("cpu", copy=True),
            workers=len(links),
            statistics=replica.initial_statistics().to("cpu"),
            totals=torch.zeros(3, dtype=torch.float64),
            batches=batches,
            control=control,
            timeline=timeline,
            recorder=recorder,
            compiled=compiled,
            measured=measured,
        )
        self.server_seconds = clock.server_seconds
        self.check_refusal = check_refusal
        push = push_fields(self.layout.pushed, self.statistics.numel())
        self.connections = Connections(links, pull_fields(self.layout.pull, server.period), push, find_lost)
        # By worker, pushes since its process began, and what its half keeps in a run that goes on.
        self.taken = [0] * len(links)
        self.kept: list[Message] = []

    def run(self) -> None:
        """Serve until every batch is done.

        Raises:
            Stop: the run diverged or was asked to stop.
            PeerLost: all workers are gone.
        """
        self.connections.start()
        control = self.control
        control.start()
        try:
            if self.recorder is not None:
                self.recorder.begin()
                if self.resumed:
                    self.recorder.resumed(version=control.updates, time=control.wall())
            for worker in range(len(self.connections)):
                # A worker process is new when a run goes on. Its half gets its state before the first batch.
                if self.resumed and self.restoring:
                    state = self.restored(worker)
                    self.connections[worker].send((RESTORE, 0, 0, 0), self.restoring, state)
                if self.resumed and self.layout.state:
                    self.connections[worker].send((KEEP, 0, 0, 0), self.layout.state, self.kept[worker])
                self._occupied()
                self._answer(worker)
            while not self.leases.finished:
                if not self.leases.at_barrier:
                    self.check_admission()
                    self._next()
                    continue
                self._meet()
                if control.due():
                    self._evaluate(False)
        finally:
            control.pause()
            if self.recorder is not None:
                self.recorder.flush()
            # Only workers that wait for work are told; the others notice that the server is gone.
            for worker in self.leases.idle | self.withheld.keys():
                self.connections[worker].send_stop()

    def _next(self) -> None:
        """Handle the next message, or whatever else has come up, and evaluate if that is due."""
        self._take()
        finished = self.leases.finished
        if self.control.due(finished):
            self._evaluate(finished)

    def _take(self) -> None:
        """Handle the next message, or whatever else has come up."""
        for worker, fault in self.connections.find_lost():
            self._drop(worker, fault)
        arrival = self.connections.next()
        if arrival is None:
            return
        if arrival.fault is not None:
            self._drop(arrival.worker, arrival.fault)
        # A worker that was dropped as stuck may have pushed just before it was killed: its batch is another's now.
        elif self.connections[arrival.worker].alive:
            self._handle(arrival.worker, arrival.time)

    def _handle(self, worker: int, arrived: float) -> None:
        """Take in a push and answer it."""
        if self.connections[worker].inbox.header[0] == DROPPED:
            self._restart(worker, arrived)
            return
        connection, begin = self.connections[worker], time.perf_counter()
        # Noted before they change: taking the push in counts an update and frees the lease, replying sets a new
        # version.
        pulled, version, held = self.version[worker], self.control.updates, self.leases.held[worker]
        withheld = self.withheld_seconds[worker]
        compute = float(connection.inbox.numbers[3])
        # What is recorded if the push ends the run, and `_take_push` does not return.
        clipped = compute
        try:
            self._occupied()
            clipped = self._take_push(worker, arrived, compute)
            self._answer(worker)
        finally:
            # In `finally`, so that the trace also has the push that made the loss infinite.
            if self.recorder is not None:
                self.recorder.push(
                    worker,
                    pulled=pulled,
                    version=version,
                    batch=held[0],
                    steps=len(held),
                    time=self.control.seconds,
                    compute=clipped,
                    waited=begin - arrived,
                    served=time.perf_counter() - begin,
                    took=compute,
                    withheld=withheld,
                )

    def _restart(self, worker: int, arrived: float) -> None:
        """Let a worker that has dropped what it computed pull anew, for the same batch."""
        connection, begin = self.connections[worker], time.perf_counter()
        pulled = self.version[worker]
        connection.recalls.heard(pulled)
        self._occupied()
        now = self.control.wall()
        there, took = now - (time.perf_counter() - arrived), float(connection.inbox.numbers[3])
        compute = self.timeline.round_trip(worker, connection.sent_at, there, now, took, "stopped")
        self.stopped += 1
        batches = self.leases.again(worker)
        self._send_batches(worker, batches)
        if self.recorder is not None:
            self.recorder.stopped(
                worker,
                pulled=pulled,
                version=self.control.updates,
                batch=batches[0].number,
                steps=len(batches),
                time=now,
                compute=compute,
                waited=begin - arrived,
                served=time.perf_counter() - begin,
            )

    def _occupied(self) -> None:
        """Sleep for as long as the configuration says that a message occupies the server."""
        if self.server_seconds:
            time.sleep(self.server_seconds)

    def _take_push(self, worker: int, arrived: float, compute: float) -> float:
        """Take in a push; return how long it was computed on the run's clock, which stands at evaluations."""
        connection = self.connections[worker]
        inbox = connection.inbox
        batches = self.leases.done(worker)
        message = {name: inbox.tensors[name] for name in self.layout.pushed}
        self.taken[worker] += 1
        push = self.push(worker, message, inbox.tensors.get(STATISTICS), batches)
        # A worker sends the sums since its last push, not since the start, so nothing is counted twice.
        self.totals.add_(inbox.numbers[:3])
        now = self.control.wall()
        # The receiving thread noted the machine's time; counted back from now, it is a second of the run.
        there = now - (time.perf_counter() - arrived)
        seconds = self.timeline.round_trip(worker, connection.sent_at, there, now, compute)
        # Until its next batch the worker waits: at a barrier its wait is counted from here.
        connection.pushed_at = now
        self.count(push, now)
        if push.applied:
            for other in self.recalled():
                self.connections[other].recall(self.version[other])
        return seconds

    def _meet(self) -> None:
        """Hold the barrier that all workers have come to."""
        begin = self.control.wall()
        for worker in self.connections.living():
            self.timeline.span(worker, "wait", min(self.connections[worker].pushed_at, begin), begin)
        # One round after the other: what the server broadcasts in a round depends on the answers of the round before.
        for number, sizes in enumerate(self.rounds):
            turn = BarrierRound(
                number,
                sizes,
                self.broadcast(number),
                next_batch=self.leases.next,
                connections=self.connections,
                wall=self.control.wall,
                timeline=self.timeline,
            )
            if sizes.answer:
                answers = turn.answers(self._drop, self._occupied)
                self.server.collect(number, sum_messages(answers[shard] for shard in sorted(answers)))
            else:
                turn.broadcast()
        self.end_barrier(self.control.wall())
        # In the order of their numbers, as in a simulation, so that a replay leases the same batches to the same
        # workers.
        for worker in sorted(self.leases.idle):
            self._reply(worker)

    def _answer(self, *asking: int) -> None:
        """Answer workers that ask for a batch, and those that were let wait, as far as the method admits them."""
        for worker in self.admitted(self.control.wall(), *asking):
            self._reply(worker)

    def _reply(self, worker: int) -> None:
        """Answer with fresh weights and the batches of a period; without a batch left the worker idles."""
        batches = self.leases.lease(worker, self.server.steps(worker))
        if batches:
            self._send_batches(worker, batches)

    def _send_batches(self, worker: int, batches: Sequence[Batch]) -> None:
        # The worker must have a shard's state before it computes on a batch that is drawn from that shard.
        self._hand_over(worker)
        numbers = torch.zeros(self.server.period, dtype=torch.int64)
        numbers[: len(batches)] = torch.tensor([batch.number for batch in batches])
        message = self.pull(worker) | {BATCHES: numbers}
        header = (BATCH, len(batches), self.version[worker])
        self.connections[worker].send_batch(header, message, self.control.wall())

    def _hand_over(self, worker: int) -> None:
        """Send a worker the state of the shards of the training set that it takes over."""
        connection = self.connections[worker]
        while connection.shards_due:
            shard = connection.shards_due.pop(0)
            connection.send((SHARD, shard, 0, 0), self.layout.shard_state, self.shard_state(shard))

    def _drop(self, worker: int, fault: str) -> None:
        """Go on without a worker: its batch goes to an idle one, or to whoever pulls next.

        Raises:
            PeerLost: it was the last one.
            InputError: it ended because what it had to send is not what its method declared.
        """
        connection = self.connections[worker]
        # A dead worker is reported twice: by its broken connection and by the supervisor.
        if not connection.alive:
            return
        # A worker that its method made send what was not declared has left a line about it: no other will do better.
        self.check_refusal()
        # First: what follows looks for workers that are still there.
        connection.alive = False
        self.count_lost(worker, self.control.wall())
        updates = self.control.updates
        # Looked up before `release` takes it back.
        held = self.leases.held.get(worker)
        waking = self.leases.release(worker)
        if not self.connections.living():
            raise PeerLost(f"all workers are lost; the last one was worker {worker} ({fault}), after update {updates}")
        batch = "it held no batch" if held is None else f"its {_named(held)} handed out again"
        # After `release`, so that a lost worker does not get its own shards, and before anyone is woken: a batch is
        # drawn from the shards that its worker has then.
        if reassigned := self.leases.reassign_shards(worker):
            owner, shards = reassigned
            self.connections[owner].shards_due += shards
            batch += f"; worker {owner} takes over its shard of the training set"
        log.warning("worker %d lost after update %d (%s); %s", worker, updates, fault, batch)
        for other in waking:
            self._reply(other)
        self._answer()

    def _evaluate(self, finished: bool) -> None:
        """Evaluate and save. If workers write to the weights themselves, all finish their batches first."""
        if self.server.at_rest:
            # No batch is handed out until those that are held are done.
            quota, self.leases.quota = self.leases.quota, 0
            while self.leases.held:
                self._take()
            self.leases.quota = quota
        self.control.evaluate(self.weights(), self.statistics, self.totals, self, finished)
        if self.server.at_rest:
            for worker in sorted(self.leases.idle):
                self._reply(worker)

    def state_dict(self) -> dict[str, Any]:
        """Return the server's state, and what the workers' halves keep, which they are asked for."""
        kept = gather_states(self.connections, self.layout.state, self.taken, self.leases.held)
        return super().state_dict() | {"worker_states": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; batches that were being computed are handed out again.

        Gradients that were on their way are not part of a checkpoint: on processes nobody can stop them there.
        """
        self.kept = state.get("worker_states", self.kept)
        # After the state, the leases begin anew: the worker processes are new, and each is told of its shards before
        # its first batch.
        super().load_state_dict(state)
        self.leases.restart()
        for worker, shards in self.leases.shards.items():
            self.connections[worker].shards_due += shards


def _named(numbers: Sequence[int]) -> str:
    """Return batches by their numbers, and the verb."""
    if len(numbers) == 1:
        return f"batch {numbers[0]} is"
    return f"batches {', '.join(map(str, numbers))} are"
