"""The compute processes of a simulation: how many there are, and what each of them does for a topology."""

from __future__ import annotations

import logging

from algorithms.base import Collective
from runner.config.errors import InputError
from runner.simulated.arena import Arena, Places
from runner.simulated.local_steps import StepTasks
from runner.simulated.pooled_halves import ServerPlaces, ServerTasks
from runner.simulated.write_directions import MemoryPlaces, MemoryTasks
from runner.train.components import RunComponents

log = logging.getLogger("dcrun")


def process_count(components: RunComponents, *, possible: bool) -> int:
    """Return the number of processes that compute, 1 if it is the run's own.

    Args:
        components: what the run is made of.
        possible: whether the methods of this kind can be computed by several processes.

    Raises:
        InputError: `run.compute_processes` is a number that this run cannot have.
    """
    asked = components.cfg.run.compute_processes
    if asked == 1:
        return 1
    reason = _obstacle(components, possible=possible)
    if asked == "auto":
        return 1
    if reason is not None:
        raise InputError.of("run.compute_processes", asked, reason, "1, auto")
    if asked > components.workers:
        what = f"there are {components.workers} workers, and each is at one gradient at a time"
        raise InputError.of("run.compute_processes", asked, what, f"auto, 1 to {components.workers}")
    return asked


def _obstacle(components: RunComponents, *, possible: bool) -> str | None:
    """Return why one process has to compute all, None if it need not."""
    if not possible:
        return f"the workers of algorithm={components.cfg.names.algorithm} need each other's results within a step"
    if components.device.type != "cpu":
        return f"on {components.device} one process computes"
    if components.oracle.streams:
        return f"dataset={components.cfg.names.dataset} decodes samples as they are used, in processes of its own"
    return None


def server_tasks(components: RunComponents, arena: Arena, places: ServerPlaces) -> ServerTasks:
    """Return what a compute process does for a method on a parameter server."""
    return ServerTasks(
        components.method,
        oracle=components.oracle,
        batches=components.batches,
        workers=components.workers,
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
        arena=arena,
        places=places,
    )


def instances(components: RunComponents) -> list[Collective]:
    """Return the instances of a collective method that a simulation has."""
    # With equal weights at all times one instance does for all workers.
    return [components.method] if components.method.replicated else components.methods()
