"""A worker of a parameter-server method on a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from algorithms.base import Batch, Field, Fields, Layout, Message, Round, Worker, message_bytes, shard_range
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.messages import check_message
from runner.loop.worker_steps import take_steps
from runner.processes.links import Link
from runner.processes.message_buffer import BATCH, DROPPED, KEEP, RESTORE, ROUND, SHARD, STOP, TELL, MessageBuffer
from runner.processes.recalls import LOOK_SECONDS, NOTHING, Recalled, RecallInbox
from runner.processes.worker_states import KeptState

STATISTICS = "batch statistics"
"""Field of a push that carries the batch-norm statistics of its batches."""
BATCHES = "batch numbers"
"""Field of a pull that carries the numbers of the batches to compute on."""


def push_fields(push: Fields, statistics: int) -> Fields:
    """Return the fields of a worker's buffer: the method's, and batch-norm statistics if the network has any."""
    return {**push, **({STATISTICS: statistics} if statistics else {})}


def pull_fields(pull: Fields, period: int) -> Fields:
    """Return the fields of a message with batches: the method's, and the batches' numbers, `period` or fewer."""
    return {**pull, BATCHES: Field(period, torch.int64)}


class WorkerProcess:
    """Work for a server until it says stop: receive weights and batch numbers, compute, push; at barriers, answer.

    One thread does everything, one message after the other. It waits for each push to leave before it receives again,
    so that its buffers are never written to while they travel.

    Args:
        half: the method's worker half.
        link: to the server.
        worker: its number, from 0.
        layout: of the messages.
        oracle: gradients.
        batches: the run's batches.
        clock: delays that are acted with real sleeps.
        gradients: gradient evaluations per sample of a batch, by the number of updates when it was pulled.
        workers: number of workers M, whose shards there are.
        period: see `ParameterServer.period`.
        rounds: of a barrier.
        restoring: layout of the message that restores this half.
        shard_gradients: gradient evaluations per sample of a shard, in all rounds with answers.
        stops: whether the server may tell this worker to stop what it computes.
        report_step: told the number of batches and shards computed on so far.
    """

    def __init__(
        self,
        half: Worker,
        link: Link,
        *,
        worker: int,
        layout: Layout,
        oracle: NetworkOracle,
        batches: Batches,
        clock: Clock,
        gradients: Callable[[int], float],
        workers: int = 1,
        period: int = 1,
        rounds: Sequence[Round] = (),
        restoring: Fields | None = None,
        shard_gradients: float = 0.0,
        stops: bool = False,
        report_step: Callable[[int], None] = lambda pushes: None,
    ) -> None:
        self.half = half
        self.link = link
        self.worker = worker
        self.workers = workers
        self.layout = layout
        self.oracle = oracle
        self.batches = batches
        self.clock = clock
        self.gradients = gradients
        self.rounds = rounds
        # A share for each round with an answer, as on the virtual clock.
        self.shard_gradients = shard_gradients / max(1, sum(bool(sizes.answer) for sizes in rounds))
        self.report_step = report_step
        self.on_gpu = oracle.device.type == "cuda"
        self.tasks = 0
        self.kept = KeptState(half, layout.state, oracle.device)
        self.shards = [] if batches.shards is None else [worker]
        # Buffers are allocated once: page-locked memory is slow to get, and each message has the same size.
        push = push_fields(layout.pushed, oracle.replica.statistics.numel())
        self.inbox = MessageBuffer(pull_fields(layout.pull, period), pinned=self.on_gpu)
        self.outbox = MessageBuffer(push, pinned=self.on_gpu)
        self.broadcasts = [MessageBuffer(sizes.broadcast, pinned=self.on_gpu) for sizes in rounds]
        self.answers = [MessageBuffer(sizes.answer, pinned=self.on_gpu) for sizes in rounds]
        self.state = MessageBuffer(restoring or {}, pinned=self.on_gpu)
        self.shard_state = MessageBuffer(layout.shard_state)
        self.recalls = RecallInbox(link) if stops else None
        if self.recalls is not None:
            oracle.interrupt = self.recalls.look

    def run(self) -> None:
        """Do what the server asks for, to the end.

        Raises:
            InputError: a message is not what its method declared.
            RuntimeError: the server is gone.
        """
        while True:
            # Every request begins with a message of a pull's size, because a receiver has to know the size beforehand.
            self.link.receive(self.inbox.raw)
            kind, number, third, fourth = self.inbox.header.tolist()
            if kind == STOP:
                return
            if kind == RESTORE:
                self.link.receive(self.state.raw)
                self.half.restore(self.state.tensors)
            elif kind == SHARD:
                self._adopt(number)
            elif kind == KEEP:
                self.kept.take(self.link)
            elif kind == TELL:
                self.kept.tell(self.link, number)
            elif kind == ROUND:
                self._take_round(number, third, fourth)
            else:
                assert kind == BATCH
                self._work(number, third)

    def _adopt(self, shard: int) -> None:
        """Take over a shard: the worker's own when a run is resumed, or a lost worker's."""
        self.link.receive(self.shard_state.raw)
        piece = shard_range(self.batches.samples, self.workers, shard)
        self.half.adopt_shard(piece, self.shard_state.tensors)
        # A batch is drawn from the shards in this order; a worker's own comes first.
        if shard not in self.shards:
            self.shards.append(shard)

    def _take_round(self, number: int, shard: int, next_batch: int) -> None:
        """Take in a round's broadcast, and answer for a shard if one is given."""
        broadcast, answer = self.broadcasts[number], self.answers[number]
        self.link.receive(broadcast.raw)
        self._travel(self.rounds[number].broadcast)
        # From here on the time counts as computing; the message's way here is the network's.
        begin = time.perf_counter()
        self.half.receive(number, broadcast.tensors)
        if shard < 0:
            return
        batch = self.batches.shard(shard, self.workers, next_batch)
        seed_generators(self.oracle.device, self.batches.seed, "answer", batch.number, number)
        message = self.half.answer(self.oracle, number, batch)
        check_message(self.half, f"answer of round {number}", message, self.rounds[number].answer)
        self._fill(answer, message)
        self._pace(begin, len(batch.ids), self.shard_gradients)
        self._send(answer, self.rounds[number].answer, begin)

    def _work(self, steps: int, updates: int) -> None:
        """Compute on `steps` batches with the pulled weights, those after `updates` updates, and push."""
        self._travel(self.layout.pull)
        begin = since = time.perf_counter()
        # Only numbers come from the server: the worker has the data, and knows which samples they mean.
        batches = self.batches.steps(self.inbox.tensors[BATCHES][:steps].tolist(), self.shards)
        pulled = {name: self.inbox.tensors[name] for name in self.layout.pull}
        evaluations = self.gradients(updates)

        def between(batch: Batch) -> None:
            nonlocal since
            self._pace(since, len(batch.ids), evaluations)
            since = time.perf_counter()

        self.kept.begin_push()
        seed, fields = self.batches.seed, self.layout.pushed
        if self.recalls is not None:
            self.recalls.computing = updates
        self.outbox.header[0] = BATCH
        try:
            # It checks the message before it is packed, where a wrong type would be converted and a wrong shape might
            # be spread out.
            message = take_steps(self.half, self.oracle, pulled, batches, seed=seed, pushed=fields, between=between)
            statistics = self.oracle.replica.statistics
            extra = {STATISTICS: statistics} if statistics.numel() else {}
            self._fill(self.outbox, message | extra)
            self._pace(since, len(batches[-1].ids), evaluations)
        except Recalled:
            self._drop(begin)
        else:
            self._send(self.outbox, self.layout.push, begin)
        if self.recalls is not None:
            # One that comes too late must not stop what is computed at a barrier.
            self.recalls.computing = NOTHING

    def _drop(self, begin: float) -> None:
        """Say that what was computed since `begin` is dropped: by a message of a push's size, as it is waited for."""
        self.kept.drop_push()
        self.oracle.take_totals()
        # What was dropped was a task of the clock too.
        self.tasks += 1
        self.outbox.header[0] = DROPPED
        self._send(self.outbox, {}, begin)

    def _fill(self, buffer: MessageBuffer, message: Message) -> None:
        """Fill a message to be sent."""
        buffer.fill(message)
        buffer.numbers[:3].copy_(self.oracle.totals, non_blocking=self.on_gpu)
        # On a GPU this is in line behind the copy, which therefore still reads the sums.
        self.oracle.totals.zero_()

    def _pace(self, since: float, samples: int, evaluations: float) -> None:
        """Wait until the task that began at `since` is done and has taken as long as the clock says."""
        if self.on_gpu:
            # A task waits for the GPU only here: the weights' copy, the step and what is sent are all on this stream.
            torch.cuda.current_stream(self.oracle.device).synchronize()
        took = time.perf_counter() - since
        load = samples / self.batches.size
        self._sleep(self.clock.sleep_seconds(self.worker, self.tasks, took, load, evaluations))
        # A barrier's answer is a task too, as on the virtual clock: both draw the same delays for the same task.
        self.tasks += 1

    def _sleep(self, seconds: float) -> None:
        """Act a delay of computing, which a recall ends as it would end the computing."""
        deadline = time.perf_counter() + seconds
        while self.recalls is not None and (left := deadline - time.perf_counter()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            self.recalls.look()
        if self.recalls is None and seconds:
            time.sleep(seconds)

    def _send(self, buffer: MessageBuffer, fields: Fields, begin: float) -> None:
        """Send a message that is computed since `begin`; to the server an acted delay is computing."""
        buffer.numbers[3] = time.perf_counter() - begin
        self._travel(fields)
        self.link.send(buffer.raw).wait()
        self.report_step(self.tasks)

    def _travel(self, fields: Fields) -> None:
        """Sleep for as long as a message takes on the network of the configuration."""
        if seconds := self.clock.transfer_seconds(message_bytes(fields)):
            time.sleep(seconds)
