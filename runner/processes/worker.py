"""A worker of a parameter-server method on a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from algorithms.base import Layout, Message, Round, Worker, shard_range
from runner.config.units import FLOAT_BYTES
from runner.gradients.oracle import NetworkOracle
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.processes.links import Link
from runner.processes.message_buffer import BATCH, RESTORE, ROUND, SHARD, STOP, MessageBuffer

STATISTICS = "batch statistics"
"""Field of a push that carries the batch-norm statistics of its batch."""


def push_fields(push: dict[str, int], statistics: int) -> dict[str, int]:
    """Return the fields of a worker's buffer: the method's, and the batch-norm statistics where the network has any."""
    return push | ({STATISTICS: statistics} if statistics else {})


def serve_worker(
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
    rounds: Sequence[Round] = (),
    restoring: dict[str, int] | None = None,
    shard_gradients: float = 0.0,
    report_step: Callable[[int], None] = lambda pushes: None,
) -> None:
    """Work for a server until it says stop: receive weights and a batch number, compute, push; at barriers, answer.

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
        rounds: of a barrier.
        restoring: layout of the message that restores this half.
        shard_gradients: gradient evaluations per sample of a shard, in all rounds with answers.
        report_step: told the number of messages sent so far.

    Raises:
        RuntimeError: the server is gone.
    """
    replica = oracle.replica
    on_gpu = oracle.device.type == "cuda"
    inbox = MessageBuffer(layout.pull, pinned=on_gpu)
    outbox = MessageBuffer(push_fields(layout.push | layout.mirror, replica.statistics.numel()), pinned=on_gpu)
    heard = [MessageBuffer(part.broadcast, pinned=on_gpu) for part in rounds]
    said = [MessageBuffer(part.answer, pinned=on_gpu) for part in rounds]
    state = MessageBuffer(restoring or {}, pinned=on_gpu)
    parcel = MessageBuffer(layout.shard_state)
    answered = max(1, sum(bool(part.answer) for part in rounds))

    def travel(sizes: dict[str, int]) -> None:
        if seconds := clock.transfer_seconds(FLOAT_BYTES * sum(sizes.values())):
            time.sleep(seconds)

    def send(buffer: MessageBuffer, message: Message, begin: float, samples: int, evaluations: float) -> None:
        buffer.fill(message)
        buffer.numbers[:3].copy_(oracle.totals, non_blocking=on_gpu)
        oracle.totals.zero_()
        if on_gpu:
            # The one wait of a task: weights to the GPU, the step, and everything that is sent are in line there.
            torch.cuda.current_stream(oracle.device).synchronize()
        took = time.perf_counter() - begin
        if longer := clock.sleep_seconds(worker, task, took, samples / batches.size, evaluations):
            time.sleep(longer)
        buffer.numbers[3] = time.perf_counter() - begin

    task = 0
    shards = [] if batches.shards is None else [worker]
    while True:
        link.receive(inbox.raw)
        kind, number, third, fourth = inbox.header.tolist()
        if kind == STOP:
            return
        if kind == RESTORE:
            link.receive(state.raw)
            half.restore(state.tensors)
            continue
        if kind == SHARD:
            # The worker's own, in a run that goes on, or a lost worker's.
            link.receive(parcel.raw)
            half.adopt_shard(shard_range(batches.samples, workers, number), parcel.tensors)
            shards += [] if number in shards else [number]
            continue
        if kind == ROUND:
            link.receive(heard[number].raw)
            travel(rounds[number].broadcast)
            begin = time.perf_counter()
            half.receive(number, heard[number].tensors)
            if third < 0:
                continue
            shard = batches.shard(third, workers, fourth)
            send(said[number], half.answer(oracle, number, shard), begin, len(shard.ids), shard_gradients / answered)
            travel(rounds[number].answer)
            link.send(said[number].raw).wait()
        else:
            assert kind == BATCH
            travel(layout.pull)
            begin = time.perf_counter()
            batch = batches.draw(number, shards) if shards else batches.batch(number)
            message = half.work(oracle, inbox.tensors, batch)
            extra = {STATISTICS: replica.statistics} if replica.statistics.numel() else {}
            send(outbox, message | extra, begin, len(batch.ids), gradients(third))
            travel(layout.push)
            link.send(outbox.raw).wait()
        task += 1
        report_step(task)
