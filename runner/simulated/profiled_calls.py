"""Which functions of a simulation `run.profile` measures, and what their time counts for; one list a topology.

A worker's own arithmetic around its gradients counts as update. With compute processes the run only hands over and
waits: what they compute has rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runner.run_folder.profile import (
    CLOCK,
    DATA,
    GRADIENTS,
    HAND_OVER,
    UPDATE,
    WAITING,
    Measured,
    ProfiledCall,
    ReportedCall,
    profiled,
)
from runner.simulated.collective import SimulatedCollective
from runner.simulated.pipeline import SimulatedPipeline
from runner.simulated.pooled_modules import PooledModules
from runner.simulated.server import SimulatedServer
from runner.simulated.shared_memory import SimulatedMemory


def server_calls(executor: SimulatedServer) -> Iterable[Measured]:
    """Yield the functions of a parameter server and its workers."""
    yield from profiled(executor.events, CLOCK, "begin", "next", "pulled", "recall", "meet")
    yield from profiled(
        executor.server, UPDATE, "admits", "announce", "pull", "push", "recalled", "broadcast", "collect"
    )
    yield from profiled(executor.leases, DATA, "lease", "done")
    yield from profiled(executor, HAND_OVER, "push", "pull", "broadcast", "_send_pull", "_meet")
    yield from _workers_calls(executor.halves, "work", "answers", "receive", "adopt", "restore", "begin", "taken")


def collective_calls(executor: SimulatedCollective) -> Iterable[Measured]:
    """Yield the functions of workers that combine."""
    yield from profiled(executor.times, CLOCK, "compute", "send", "receive")
    yield from profiled(executor, HAND_OVER, "_combine", "_send", "_receive")
    for method in executor.methods:
        yield ProfiledCall(method, "apply", UPDATE)
    yield from _workers_calls(executor.steps, "local", "begin", "taken")


def memory_calls(executor: SimulatedMemory) -> Iterable[Measured]:
    """Yield the functions of workers on shared memory."""
    yield from profiled(executor.times, CLOCK, "compute", "write_seconds", "written", "snapshot")
    yield from profiled(executor.leases, DATA, "lease", "done")
    yield from profiled(executor, HAND_OVER, "_read_piece")
    yield from profiled(executor.method, UPDATE, "coordinates", "write", "snapshot")
    yield from _workers_calls(executor.directions, "direction", "shard_gradients", "begin", "taken")


def pipeline_calls(executor: SimulatedPipeline) -> Iterable[Measured]:
    """Yield the functions of a pipeline's modules."""
    yield ProfiledCall(executor.times, "iterate", CLOCK)
    if isinstance(executor.modules, PooledModules):
        yield from _workers_calls(executor.modules, "iterate", "finish", "state_dict")
        return
    yield ProfiledCall(executor.modules, "features", DATA)
    for method in executor.methods:
        yield from profiled(method, GRADIENTS, "forward", "backward")
        yield ProfiledCall(method, "optimizer_step", UPDATE)


def _workers_calls(workers: Any, *names: str) -> Iterable[Measured]:
    """Yield the functions of what computes for the workers, here or in compute processes."""
    pool = getattr(workers, "pool", None)
    yield from profiled(workers, UPDATE if pool is None else HAND_OVER, *names)
    if pool is not None:
        yield from profiled(pool, WAITING, "result", "tell", "wait_ready")
        yield from profiled(pool, HAND_OVER, "submit", "begin", "release", "drop")
        yield ReportedCall(pool, "worked", "compute process", GRADIENTS)
