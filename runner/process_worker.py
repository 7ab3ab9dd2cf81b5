"""A worker of a parameter-server method on a process of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch

from algorithms.base import Layout, Worker, cut
from runner.batches import Batches
from runner.clock import Clock
from runner.links import Link
from runner.oracle import NetworkOracle
from runner.packet import PART, STOP, Packet
from runner.trace import FLOAT_BYTES

STATISTICS = "batch statistics"
"""Field of a push that carries the batch-norm statistics of its batch."""


def push_fields(push: dict[str, int], statistics: int) -> dict[str, int]:
    """Return the fields of a worker's packet: the method's, and the batch-norm statistics where the network has any."""
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
    gradients: float,
    sign: Callable[[int], None] = lambda pushes: None,
) -> None:
    """Work for a server until it says stop: receive weights and a batch number, compute, push.

    Args:
        half: the method's worker half.
        link: to the server.
        worker: its number, from 0.
        layout: of the messages.
        oracle: gradients.
        batches: the run's batches.
        clock: delays that are acted with real sleeps.
        gradients: gradient evaluations per sample of a batch.
        sign: told the number of messages pushed so far.

    Raises:
        RuntimeError: the server is gone.
    """
    replica = oracle.replica
    on_gpu = oracle.device.type == "cuda"
    inbox = Packet(layout.pull, pinned=on_gpu)
    outbox = Packet(push_fields(layout.push | layout.mirror, replica.statistics.numel()), pinned=on_gpu)
    parts = [] if batches.parts is None else [worker]
    down, up = (clock.transfer_seconds(FLOAT_BYTES * sum(part.values())) for part in (layout.pull, layout.push))
    for task in itertools.count():
        link.receive(inbox.buffer)
        while int(inbox.header[0]) == PART:
            _take(half, link, int(inbox.header[1]), worker, parts, layout, batches)
            link.receive(inbox.buffer)
        if int(inbox.header[0]) == STOP:
            return
        if down:
            time.sleep(down)
        begin = time.perf_counter()
        number = int(inbox.header[1])
        batch = batches.drawn(number, parts) if parts else batches.batch(number)
        message = half.work(oracle, inbox.tensors, batch)
        outbox.fill(message | ({STATISTICS: replica.statistics} if replica.statistics.numel() else {}))
        outbox.numbers[:3].copy_(oracle.totals, non_blocking=on_gpu)
        oracle.totals.zero_()
        if on_gpu:
            # The one wait of a task: weights to the GPU, the step, and everything that is sent are in line there.
            torch.cuda.current_stream(oracle.device).synchronize()
        took = time.perf_counter() - begin
        if longer := clock.sleep_seconds(worker, task, took, len(batch.ids) / batches.size, gradients):
            time.sleep(longer)
        outbox.numbers[3] = time.perf_counter() - begin
        if up:
            time.sleep(up)
        link.send(outbox.buffer).wait()
        sign(task + 1)


def _take(half: Worker, link: Link, part: int, worker: int, parts: list[int], layout: Layout, batches: Batches) -> None:
    """Receive what the server knows of a part of the training set, the worker's own or one that it takes over."""
    assert batches.parts is not None
    parcel = Packet(layout.kept)
    link.receive(parcel.buffer)
    half.take(cut(batches.samples, batches.parts, part), parcel.tensors)
    if part != worker:
        parts.append(part)
