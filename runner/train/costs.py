"""What a gradient and an update of a method cost on this machine, measured on a few steps; one function a topology.

The steps are taken with a learning rate of 0 on the run's own components, whose method has then started: a run needs
components of its own.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from algorithms.base import Collective, Field, Fields, Message, ParameterServer, Step, field_of, message_bytes
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.config.units import FLOAT_BYTES
from runner.loop.mixing import Mixing
from runner.loop.pipeline_schedule import first_features, iterate
from runner.train.components import RunComponents
from runner.train.timing import median_seconds

# A rate of 0 leaves the weights as they are, so no measured step diverges.
STILL = Step(lr=0.0)


class Costs(NamedTuple):
    """What a step costs.

    Attributes:
        gradient: seconds of a worker's part of a step: gradient and message.
        update: seconds of the update that follows.
        copies: elements that the run keeps besides the method's state and the replica, counted as of float32.
        traffic: elements of a worker's messages of one step, both ways, counted likewise.
    """

    gradient: float
    update: float
    copies: int
    traffic: int


def server_costs(components: RunComponents) -> Costs:
    """Measure a worker's gradient and the server's update."""
    method: ParameterServer = components.method
    oracle, batch, workers = components.oracle, components.batches.batch(0), components.workers
    n = components.parameters
    # Compiled as in the run: what is measured is what the run will pay.
    method.start(oracle.replica.weights.clone(), workers, components.cfg.run.compile)
    half, layout = method.worker(0), method.layout(n)
    half.keep({name: method.w.new_zeros(size, dtype=dtype) for name, (size, dtype) in _fields(layout.state).items()})
    for number, part in enumerate(method.rounds(n)):
        # From the first barrier on a push may cost more than before it.
        half.receive(number, method.broadcast(number))
        if part.answer:
            method.collect(number, half.answer(oracle, number, batch))
    # What is pulled and pushed may be borrowed, and would change under the steps that follow.
    pulled = _copied(method.pull(0))
    gradient = median_seconds(lambda: half.work(oracle, pulled, batch), components.device)
    message = _copied(half.work(oracle, pulled, batch))
    update = median_seconds(lambda: method.push(0, message, STILL), components.device)
    down, up, kept = (message_bytes(fields) // FLOAT_BYTES for fields in (layout.pull, layout.push, layout.state))
    # A server that keeps what it sent to each worker has it in its state, which is counted there.
    return Costs(gradient, update, workers * (kept if method.sent(0) else kept + down), down + up)


def _fields(declared: Fields) -> dict[str, Field]:
    return {name: field_of(each) for name, each in declared.items()}


def memory_costs(components: RunComponents) -> Costs:
    """Measure a worker's direction and its write to the shared memory."""
    method: SharedMemory = components.method
    oracle, n, workers = components.oracle, components.parameters, components.workers
    w = oracle.replica.weights.clone()
    # On a copy: the replica keeps the initial weights.
    method.start(w, workers)
    # From the first snapshot on a direction may cost more than before it.
    batch = components.batches.batch(0)._replace(number=len(components.batches))
    gradient = median_seconds(lambda: method.direction(oracle, w, batch), components.device)
    v = method.direction(oracle, w, batch).clone()
    # Any generator: the number of coordinates is what costs, not which they are.
    written = method.coordinates(n, np.random.default_rng(0))
    update = median_seconds(
        lambda: method.write(slice(0, n) if written is None else written, v, 0.0), components.device
    )
    return Costs(gradient, update, workers * n, n + (n if written is None else len(written)))


def collective_costs(components: RunComponents) -> Costs:
    """Measure a worker's local step and how it applies a combination."""
    method: Collective = components.method
    oracle, workers = components.oracle, components.workers
    w = oracle.replica.weights.clone()
    method.start(w, 0, workers, components.cfg.run.compile)
    share = components.batches.shares(0, workers)[0]
    gradient = median_seconds(lambda: method.local(oracle, share, STILL), components.device)
    # With neighbours a worker exchanges a message each; else one goes out, and one comes back.
    messages = max(map(len, Mixing(method, workers).groups)) - 1 if method.combine == "mix" else 1
    # A gathering leaves every worker's vector, a mean only one.
    stacked = (workers,) if method.combine == "gather" else ()
    layout = method.layout(components.parameters)
    fields = {name: field_of(declared) for name, declared in layout.items()}
    combined = {
        name: torch.zeros(*stacked, field.size, dtype=field.dtype, device=w.device) for name, field in fields.items()
    }
    update = median_seconds(lambda: method.apply(combined, STILL), components.device)
    # A simulation keeps the state of every worker in this one process, unless all of them are equal.
    copies = 0 if method.replicated else (workers - 1) * _elements(method.state())
    return Costs(gradient, update, copies, 2 * messages * message_bytes(layout) // FLOAT_BYTES)


def pipeline_costs(components: RunComponents) -> Costs:
    """Measure an iteration of all modules with their updates; traffic is that of the module which sends most."""
    partition, workers = components.partition, components.workers
    methods: list[Pipeline] = components.methods()
    for rank, (method, stage) in enumerate(zip(methods, partition.stages, strict=True)):
        method.setup(stage.weights, partition.stage_info(rank))
    oracle, batch, number = components.oracle, components.batches.batch(0), itertools.count()
    sent: list[Tensor | None] = [None] * workers
    pieces = methods[0].micro_batches

    def step() -> None:
        nonlocal sent
        iteration = next(number)
        features = [first_features(oracle, batch, iteration, piece, pieces) for piece in range(pieces)]
        sent = iterate(methods, partition.stages, features, sent, STILL)

    # Until the last module's error gradient has come down to the first, some modules have nothing to do.
    for _ in range(workers):
        step()
    others = sum(_elements(method.state()) for method in methods[1:])
    sizes = [partition.nbytes(rank, len(batch.ids)) // FLOAT_BYTES for rank in range(workers - 1)]
    return Costs(median_seconds(step, components.device), 0.0, others, 2 * max(sizes, default=0))


def _copied(message: Message) -> Message:
    return {name: tensor.clone() for name, tensor in message.items()}


def _elements(message: Message) -> int:
    return sum(tensor.numel() for tensor in message.values())
