"""Which functions of a rank `run.profile` measures in a run on processes, and what their time counts for.

A parameter server computes no gradients, and waits while the workers do.
"""

from __future__ import annotations

from collections.abc import Iterable

from runner.processes.collective import ProcessCollective
from runner.processes.pipeline import ProcessPipeline
from runner.processes.server import ProcessServer
from runner.processes.worker import WorkerProcess
from runner.run_folder.profile import (
    CLOCK,
    DATA,
    EVALUATION,
    GRADIENTS,
    HAND_OVER,
    UPDATE,
    WAITING,
    ProfiledCall,
    profiled,
)


def server_calls(executor: ProcessServer) -> Iterable[ProfiledCall]:
    """Yield the functions of a parameter server."""
    yield from profiled(
        executor.server, UPDATE, "admits", "announce", "pull", "push", "recalled", "broadcast", "collect"
    )
    yield from profiled(executor.leases, DATA, "lease", "done")
    yield from profiled(executor, HAND_OVER, "push", "pull", "broadcast", "_reply", "_handle", "_meet")
    # What a configuration has the server sleep for each message.
    yield from profiled(executor, CLOCK, "_occupied")
    yield from profiled(executor.connections, WAITING, "next")


def worker_calls(worker: WorkerProcess) -> Iterable[ProfiledCall]:
    """Yield the functions of a server's worker."""
    yield from profiled(worker.half, UPDATE, "work", "answer", "receive", "adopt_shard", "restore")
    yield from profiled(worker, HAND_OVER, "_fill", "_send")
    # What a configuration has a message travel.
    yield from profiled(worker, CLOCK, "_travel")
    yield from profiled(worker.link, WAITING, "receive")


def collective_calls(executor: ProcessCollective) -> Iterable[ProfiledCall]:
    """Yield the functions of a worker that combines; to receive is to wait for the slowest too."""
    yield from profiled(executor.method, UPDATE, "local", "apply")
    yield from profiled(executor, HAND_OVER, "_send", "_receive")
    yield from profiled(executor, EVALUATION, "_evaluate")


def pipeline_calls(executor: ProcessPipeline) -> Iterable[ProfiledCall]:
    """Yield the functions of a pipeline's module."""
    yield from profiled(executor.method, GRADIENTS, "forward", "backward")
    yield from profiled(executor.method, UPDATE, "optimizer_step")
    yield from profiled(executor, DATA, "_features")
    yield from profiled(executor, WAITING, "_receive")
    yield from profiled(executor, HAND_OVER, "_send")
    # What a configuration has a module sleep after its passes.
    yield from profiled(executor, CLOCK, "_computed")
    yield from profiled(executor, EVALUATION, "_evaluate")
