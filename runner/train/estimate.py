"""What a run will cost, from a few measured steps: `run.estimate=true`."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from algorithms.base import ParameterServer, Step
from algorithms.pipeline import Features, Pipeline
from algorithms.shared_memory import SharedMemory
from runner.loop import barrier
from runner.loop.pipeline_schedule import backward, forward
from runner.train import pipeline
from runner.train.build import RunComponents

STEPS = 5
"""Steps that are timed, after two that are not; the median counts."""


def show(parts: RunComponents) -> int:
    """Print parameters, memory and expected wall time of the run that `parts` describe; train nothing.

    Memory counts weight vectors, gradients, the method's state and the data, not activations. Time is that of
    gradients, server updates and evaluations one after the other, as a simulation runs them, or shared among the
    workers as processes with a core of their own would.

    Returns:
        The exit code, 0.
    """
    cfg, oracle, method, workers = parts.cfg, parts.oracle, parts.method, parts.workers
    n = oracle.replica.weights.numel()
    simulated = cfg.cluster.kind != "processes"
    server = isinstance(method, ParameterServer | SharedMemory)
    w = oracle.replica.weights.clone()
    step = Step(lr=0.0)
    if isinstance(method, ParameterServer):
        method.start(w, workers, cfg.run.compile)
        half = method.worker(0)
        for number, part in enumerate(method.rounds(n)):
            # From the first barrier on a push may cost more than before it.
            half.receive(number, method.broadcast(number))
            if part.answer:
                shard = parts.batches.batch(0)
                method.collect(number, half.answer(oracle, number, shard))
        pulled = {name: tensor.clone() for name, tensor in method.pull(0).items()}
        gradient = _median(parts, lambda: half.work(oracle, pulled, parts.batches.batch(0)))
        message = half.work(oracle, pulled, parts.batches.batch(0))
        message = {name: tensor.clone() for name, tensor in message.items()}
        update = _median(parts, lambda: method.push(0, message, step))
        layout = method.layout(n)
        copies = 0 if method.sent(0) else workers * sum(layout.pull.values())
        traffic = sum(layout.pull.values()) + sum(layout.push.values())
    elif isinstance(method, Pipeline):
        gradient, copies, traffic = _pipeline(parts)
        update = 0.0
    elif isinstance(method, SharedMemory):
        method.start(w, workers)
        # From the first snapshot on a direction may cost more than before it.
        batch = parts.batches.batch(0)._replace(number=len(parts.batches))
        gradient = _median(parts, lambda: method.direction(oracle, w, batch))
        v = method.direction(oracle, w, batch).clone()
        written = method.coordinates(n, np.random.default_rng(0))
        update = _median(parts, lambda: method.write(slice(0, n) if written is None else written, v, 0.0))
        copies = workers * n
        traffic = n + (n if written is None else len(written))
    else:
        method.start(w, 0, workers, cfg.run.compile)
        share = parts.batches.shares(0, workers)[0]
        gradient = _median(parts, lambda: method.local(oracle, share, step))
        stacked = (workers,) if method.combine == "gather" else ()
        combined = {name: torch.zeros(*stacked, size, device=w.device) for name, size in method.layout(n).items()}
        update = _median(parts, lambda: method.apply(combined, step))
        copies = 0 if method.replicated else (workers - 1) * sum(tensor.numel() for tensor in method.state().values())
        traffic = 2 * sum(method.layout(n).values())
    vectors = 2 * n + copies + sum(tensor.numel() for tensor in method.state().values())
    whole = server or isinstance(method, Pipeline)
    data = parts.dataset.train.nbytes + parts.dataset.test.nbytes
    evaluation = _evaluation(parts)
    gradients = len(parts.batches) * (1 if whole else workers)
    updates = len(parts.batches)
    evaluations = math.ceil(cfg.run.epochs / cfg.run.eval_every - 1e-9)
    met = barrier.count_barriers(method, updates) if isinstance(method, ParameterServer | SharedMemory) else 0
    # A push takes so many gradient evaluations a sample, a barrier so many passes over the training set.
    passes = met * method.barrier_cost.gradients if isinstance(method, ParameterServer | SharedMemory) else 0.0
    at_barriers = passes * _pass(parts, gradient)
    seconds = (gradients * gradient + at_barriers) / side_by_side(parts) + updates * update + evaluations * evaluation

    table = Table(title="estimate", show_header=False)
    table.add_row("parameters", f"{n:,}")
    table.add_row("weight vectors and method state", f"{4 * vectors / 2**20:.1f} MiB")
    table.add_row("data", f"{data / 2**20:.1f} MiB")
    table.add_row("a worker's messages, both ways", f"{4 * traffic / 2**20:.2f} MiB")
    table.add_row("one gradient", f"{1e3 * gradient:.2f} ms")
    table.add_row("one update", f"{1e3 * update:.3f} ms")
    table.add_row("one evaluation", f"{evaluation:.2f} s")
    table.add_row("gradients, updates, evaluations", f"{gradients:,}, {updates:,}, {evaluations:,}")
    threads = torch.get_num_threads()
    where = "one process" if simulated else f"{workers} processes, each with {threads} thread(s) of its own"
    if met:
        table.add_row("barriers", f"{met:,}, {passes:g} passes over the training set in all")
    table.add_row("expected wall time", f"{_duration(seconds)} ({where}, {parts.device})")
    Console().print(table)
    return 0


def side_by_side(parts: RunComponents) -> float:
    """Return how many times as fast as one process the workers compute together: on processes, with a core for each.

    Modules whose backward passes are locked take turns; the others wait for the one that has most to compute.
    """
    method = parts.method
    if parts.cfg.cluster.kind != "processes":
        return 1.0
    if not isinstance(method, Pipeline):
        return float(parts.workers)
    return 1.0 if method.locked else 1 / max(pipeline.partition(parts).shares)


def _pipeline(parts: RunComponents) -> tuple[float, int, int]:
    """Return seconds of an iteration of all modules, its update in it; elements of the other modules' state; traffic.

    The method that `parts` has is the first module's. Traffic is the largest of a module's, both ways.
    """
    partition = pipeline.partition(parts)
    assert isinstance(parts.method, Pipeline)
    methods = [parts.method, *(parts.new_method() for _ in range(parts.workers - 1))]
    for rank, (method, stage) in enumerate(zip(methods, partition.stages, strict=True)):
        method.setup(stage.weights, partition.stage_info(rank))
    batch, number = parts.batches.batch(0), itertools.count()
    sent: list[Tensor | None] = [None] * parts.workers

    def iterate() -> None:
        nonlocal sent
        inputs, targets = parts.oracle.split.batch(batch.ids, seed=parts.oracle.seed, epoch=0)
        forward(methods, partition.stages, Features(next(number), parts.oracle.arranged(inputs), targets))
        sent = backward(methods, partition.stages, sent, Step(lr=0.0))

    for _ in range(parts.workers):
        iterate()
    others = sum(tensor.numel() for method in methods[1:] for tensor in method.state().values())
    sizes = [partition.nbytes(rank, len(batch.ids)) // 4 for rank in range(parts.workers - 1)]
    return _median(parts, iterate), others, 2 * max(sizes, default=0)


def _pass(parts: RunComponents, gradient: float) -> float:
    """Return the seconds of one gradient evaluation for each training sample, from those of one push."""
    return gradient / parts.method.cost.gradients * len(parts.dataset.train) / parts.batches.size


def _median(parts: RunComponents, call: Callable[[], object]) -> float:
    times = []
    for _ in range(STEPS + 2):
        begin = time.perf_counter()
        call()
        if parts.device.type == "cuda":
            torch.cuda.synchronize(parts.device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def _evaluation(parts: RunComponents) -> float:
    test, size = parts.dataset.test, min(parts.cfg.run.eval_batch_size, len(parts.dataset.test))
    if not size:
        return 0.0
    ids = torch.arange(size)
    parts.oracle.replica.module.eval()
    with torch.no_grad():
        batch = _median(parts, lambda: parts.oracle.loss(*test.batch(ids)))
    return batch * len(test) / size


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
