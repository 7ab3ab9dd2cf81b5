"""The table of topologies: how each protocol of `algorithms` is executed, simulated and on processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from algorithms.base import Collective, ParameterServer
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.loop.train_control import TrainControl
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Activity
from runner.run_folder.trace import Trace
from runner.simulated.collective import SimulatedCollective
from runner.simulated.events import ClockEvents, Events, TraceEvents
from runner.simulated.server import SimulatedServer
from runner.simulated.shared_memory import SimulatedMemory
from runner.train import build, pipeline
from runner.train.train import Executor


def simulated(
    parts: build.RunComponents, control: TrainControl, folder: Path | None = None, trace: Trace | None = None
) -> Executor:
    """Return the executor that simulates the method's topology; `folder` and `trace` as of `simulated_server`."""
    common: dict[str, Any] = {
        "workers": parts.workers,
        "oracle": parts.oracle,
        "batches": parts.batches,
        "control": control,
        "activity": Activity(parts.workers),
        "compiled": parts.cfg.run.compile,
    }
    if isinstance(parts.method, ParameterServer):
        return simulated_server(parts, common, folder, trace)
    if isinstance(parts.method, Pipeline):
        return pipeline.simulated(parts, control)
    if isinstance(parts.method, SharedMemory):
        del common["compiled"]
        return SimulatedMemory(parts.method, clock=parts.clock(), seed=parts.cfg.seed, **common)
    assert isinstance(parts.method, Collective)
    copies = 0 if parts.method.replicated else parts.workers - 1
    return SimulatedCollective(
        [parts.method, *(parts.new_method() for _ in range(copies))], clock=parts.clock(), **common
    )


def simulated_server(
    parts: build.RunComponents, common: dict[str, Any], folder: Path | None, trace: Trace | None
) -> SimulatedServer:
    """Return the executor of a simulated parameter server, driven by a clock or by a trace.

    Args:
        parts: the parts of the run.
        common: arguments of every simulation.
        folder: the run folder, for what is recorded; None to record nothing.
        trace: what to replay; None to simulate on a clock.
    """
    method, workers = parts.method, parts.workers
    assert isinstance(method, ParameterServer)
    events: Events
    if trace is not None:
        events = TraceEvents(trace.records, common["activity"], workers=workers)
    else:
        layout = method.layout(parts.oracle.replica.weights.numel())
        events = ClockEvents(parts.clock(), common["activity"], layout=layout, workers=workers)
    return SimulatedServer(method, events=events, recorder=folder and Recorder.of(parts, folder), **common)
