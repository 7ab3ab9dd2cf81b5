"""The compute processes of a simulation: how many there are, and what each of them does for a topology."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import torch

from algorithms.base import Batch, Collective, Step
from runner.config.resources import own_cores
from runner.config.schema import GPU_SLOT
from runner.loop.pipeline_schedule import FORWARD_SHARE
from runner.simulated.arena import Arena, Places
from runner.simulated.local_steps import StepTasks
from runner.simulated.module_tasks import ModulePlaces, ModuleTasks
from runner.simulated.pooled_halves import ServerPlaces, ServerTasks
from runner.simulated.transfers import Transfers, transfers_on
from runner.simulated.write_directions import MemoryPlaces, MemoryTasks
from runner.train.compatibility import compute_obstacle
from runner.train.components import RunComponents

log = logging.getLogger("dcrun")

LEAST_GRADIENT = 0.005
"""Seconds of a call, as a gradient, from which on `auto` hands calls to other processes; the bound is ours. A hand-over
is two messages through a pipe and one copy of the result, two between modules of a pipeline."""
LEAST_SAVED = 10.0
"""Seconds that the processes have to save for `auto` to start them; the bound is ours. They import what they need once,
but each builds the data and the network anew."""
TIMED, MOST_TIMED = 3, 0.3
"""Gradients that `auto` times at most, and seconds after which it begins no further one."""


def process_count(components: RunComponents) -> int:
    """Return the number of processes that compute, 1 if it is the run's own; `run.compute_processes` was checked."""
    asked = components.cfg.run.compute_processes
    if asked != "auto":
        return asked
    count = paying_count(components)
    log.info("run.compute_processes=auto: %d", count)
    return count


def paying_count(components: RunComponents) -> int:
    """Return the number of processes that `run.compute_processes=auto` takes for a run."""
    on_gpu = components.device.type == "cuda"
    room = own_gpus(components) if on_gpu else own_cores() // torch.get_num_threads()
    limit, method = min(room, components.workers), components.method
    if limit < 2 or compute_obstacle(components.cfg, method, components.oracle) is not None:
        return 1
    # The fewest of those that are as fast as any.
    count = max(range(1, limit + 1), key=lambda count: speedup(components, count))
    if count == 1:
        return 1
    # A GPU each, without a bound: nothing has been measured that one could go by. For the same reason one GPU has one
    # process, though two may fill it better: they also share its memory and take turns on it.
    if on_gpu:
        return count
    # The objective is no network: a gradient takes less than any that pays.
    if method.needs != "gradients":
        return 1
    gradients = components.cfg.run.epochs * components.samples / components.cfg.run.batch_size
    # Only whether it pays is measured. The bits do not depend on what comes out.
    seconds = _shortest_seconds(_gradient(components))
    saved = gradients * seconds * (1 - 1 / speedup(components, count))
    # A module goes forward and backward in two calls, each handed over.
    calls = 2 * components.workers if method.cuts_network else 1
    return count if seconds >= calls * LEAST_GRADIENT and saved >= LEAST_SAVED else 1


def speedup(components: RunComponents, count: int) -> float:
    """Return how many times as fast as one process a simulation's `count` compute processes are, at best.

    Modules of a pipeline whose backward passes are locked take turns. Of the others the process whose modules have most
    to compute sets the pace, or the way of a batch through all of them, which no other batch begins before it is over.
    """
    method = components.method
    if not method.cuts_network:
        # What a second process on a GPU gains is measured nowhere.
        return float(min(count, own_gpus(components)) if components.device.type == "cuda" else count)
    if method.locked:
        return 1.0
    shares = components.partition.work_shares
    return 1 / max(FORWARD_SHARE, *(sum(shares[first::count]) for first in range(count)))


def own_gpus(components: RunComponents) -> int:
    """Return how many GPUs a run on a GPU has for its compute processes."""
    # One that is named is all that the run may use, and so is the one that a sweep gives a job beside others.
    if ":" in components.cfg.run.device or GPU_SLOT in os.environ:
        return 1
    return torch.cuda.device_count()


def _gradient(components: RunComponents) -> Callable[[], object]:
    """Return what computes a gradient on a full batch. Of what it changes a run uses nothing."""
    oracle, batch = components.oracle, _full_batch(components)
    return lambda: oracle.reference_gradient(oracle.replica.weights, batch)


def _full_batch(components: RunComponents) -> Batch:
    ids = torch.arange(components.cfg.run.batch_size)
    return Batch(number=0, epoch=0, ids=ids, size=len(ids))


def _shortest_seconds(call: Callable[[], object]) -> float:
    """Return the seconds of the shortest of some calls.

    The first call of a process has more to do than others, but where it takes long it does not matter how much: it is
    one of hundreds, and a run should not wait for others.
    """
    times = list[float]()
    while len(times) < TIMED and sum(times) < MOST_TIMED:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def steps_in_place(components: RunComponents) -> bool:
    """Return whether a collective method's local step writes its state in place, so that processes can share it.

    A method that makes a tensor anew is found in the middle of a step otherwise, when it is too late to compute it
    here. An instance of its own takes the step: a run begins without one.
    """
    method: Collective = components.new_method()
    oracle = components.oracle
    method.start(oracle.replica.weights.clone(), 0, components.workers, False)
    before = {name: tensor.data_ptr() for name, tensor in method.state().items()}
    step = Step(lr=components.schedule.at(0.0).lr, decay=1.0)
    with oracle.uncounted():
        method.local(oracle, _full_batch(components), step)
    return before == {name: tensor.data_ptr() for name, tensor in method.state().items()}


def transfers_of(components: RunComponents, arena: Arena) -> Transfers:
    """Return the transfers of a compute process.

    Raises:
        NotShareable: the memory cannot be page-locked.
    """
    transfers = transfers_on(components.device)
    transfers.attach(arena)
    return transfers


def server_tasks(components: RunComponents, arena: Arena, places: ServerPlaces) -> ServerTasks:
    """Return what a compute process does for a method on a parameter server."""
    return ServerTasks(
        components.method,
        oracle=components.oracle,
        batches=components.batches,
        workers=components.workers,
        transfers=transfers_of(components, arena),
        arena=arena,
        places=places,
    )


def step_tasks(components: RunComponents, arena: Arena, places: list[Places]) -> StepTasks:
    """Return what a compute process does for a collective method."""
    return StepTasks(
        instances(components),
        oracle=components.oracle,
        batches=components.batches,
        workers=components.workers,
        compiled=components.cfg.run.compile,
        transfers=transfers_of(components, arena),
        arena=arena,
        places=places,
    )


def memory_tasks(components: RunComponents, arena: Arena, places: MemoryPlaces) -> MemoryTasks:
    """Return what a compute process does for a method on shared memory."""
    return MemoryTasks(
        components.method,
        oracle=components.oracle,
        batches=components.batches,
        workers=components.workers,
        transfers=transfers_of(components, arena),
        arena=arena,
        places=places,
    )


def module_tasks(components: RunComponents, arena: Arena, places: ModulePlaces) -> ModuleTasks:
    """Return what a compute process does for a pipeline method."""
    return ModuleTasks(
        components.new_method,
        components.partition,
        oracle=components.oracle,
        batches=components.batches,
        transfers=transfers_of(components, arena),
        arena=arena,
        places=places,
    )


def instances(components: RunComponents) -> list[Collective]:
    """Return the instances of a collective method that a simulation has."""
    # With equal weights at all times one instance does for all workers.
    return [components.method] if components.method.replicated else components.methods()
