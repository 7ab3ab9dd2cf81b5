"""Measure a run: `run.profile=true` hands the functions of its parts to a `Profile`; on processes those of rank 0."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from runner.loop.executor import Executor
from runner.loop.train_control import TrainControl
from runner.run_folder.profile import DATA, EVALUATION, GRADIENTS, LOGGING, Profile, ProfiledCall
from runner.run_folder.run_writer import RunWriter
from runner.train.components import RunComponents
from runner.train.executors import topology_of


def profile(components: RunComponents, control: TrainControl, writer: RunWriter, executor: Executor) -> Profile | None:
    """Return what measures a run from here on, None if `run.profile` does not ask for it."""
    if not components.cfg.run.profile:
        return None
    made = Profile(writer.startup, _settle if components.device.type == "cuda" else None)
    topology = topology_of(type(components.method))
    own = topology.process_calls if components.cfg.cluster.kind == "processes" else topology.simulated_calls
    for function in (*_common(components, control, writer, executor), *own(executor)):
        made.measure(function)
    return made


def _common(
    components: RunComponents, control: TrainControl, writer: RunWriter, executor: Executor
) -> Iterable[ProfiledCall]:
    """Yield the functions that all executors call."""
    oracle, batches, timeline = components.oracle, components.batches, executor.timeline
    for name in ("gradient", "reference_gradient", "gradient_sum", "gradient_and_norms"):
        yield ProfiledCall(oracle, name, GRADIENTS)
    for name in ("rows", "expect"):
        yield ProfiledCall(oracle, name, DATA)
    for name in ("batch", "rows", "expect"):
        yield ProfiledCall(oracle.split, name, DATA)
    for name in ("batch", "shares", "shard", "draw"):
        yield ProfiledCall(batches, name, DATA)
    yield ProfiledCall(control, "evaluate", EVALUATION)
    for name in ("advance", "spend", "_checkpoint"):
        yield ProfiledCall(control, name, LOGGING)
    for name in ("log", "finish"):
        yield ProfiledCall(writer, name, LOGGING)
    for name in ("span", "spans", "task", "staleness", "round_trip", "flush", "write"):
        yield ProfiledCall(timeline, name, LOGGING)
    for name in ("push", "barrier", "lost", "resumed", "flush"):
        yield ProfiledCall(getattr(executor, "recorder", None), name, LOGGING)


def _settle() -> None:
    # A graph that is being captured must not be waited for.
    if not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()
