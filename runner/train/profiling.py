"""Measure a run: `run.profile=true` hands the functions of its parts to a `Profile`; on processes those of each rank.

Ranks above 0 send what they measured through the store where all ranks met, and rank 0 writes it.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterable
from typing import Any

import torch

from runner.config import startup
from runner.loop.executor import Executor
from runner.loop.train_control import TrainControl
from runner.processes.rendezvous import Rendezvous
from runner.run_folder import profile_file
from runner.run_folder.profile import (
    DATA,
    EVALUATION,
    GRADIENTS,
    LOGGING,
    MOST_SPANS,
    Measured,
    Profile,
    ProfiledCall,
)
from runner.run_folder.profile_file import ProfileRow
from runner.run_folder.run_writer import RunWriter
from runner.train.components import RunComponents
from runner.train.executors import topology_of

log = logging.getLogger("dcrun")

PATIENCE = 10.0
"""Seconds that rank 0 waits, at its end, for what the others measured; one that was lost left nothing."""


def profile(components: RunComponents, control: TrainControl, writer: RunWriter, executor: Executor) -> Profile | None:
    """Return what measures a run from here on, None if `run.profile` does not ask for it."""
    if not components.cfg.run.profile:
        return None
    made = Profile(writer.startup, _settle if components.device.type == "cuda" else None)
    for function in run_calls(components, control, executor, writer):
        made.measure(function)
    return made


def run_calls(
    components: RunComponents, control: TrainControl, executor: Executor, writer: RunWriter | None = None
) -> Iterable[Measured]:
    """Yield the functions of a run; without a writer those of a rank above 0."""
    topology = topology_of(type(components.method))
    own = topology.process_calls if components.cfg.cluster.kind == "processes" else topology.simulated_calls
    yield from _of_components(components)
    yield from _common(control, writer, executor)
    yield from own(executor)


class RankProfile:
    """What a rank above 0 measures of itself, for rank 0 to write; nothing if `run.profile` does not ask for it.

    Args:
        components: of the run.
        rendezvous: where the ranks met.
    """

    def __init__(self, components: RunComponents, rendezvous: Rendezvous) -> None:
        self._components, self._rendezvous = components, rendezvous
        self._profile: Profile | None = None

    def measure(self, functions: Iterable[Measured]) -> None:
        """Measure functions from here on."""
        if not self._components.cfg.run.profile:
            return
        start = startup.current()
        start.end()
        # Of all ranks together as many calls are shown as of a run without them.
        most = MOST_SPANS // self._rendezvous.world
        self._profile = Profile(start, _settle if self._components.device.type == "cuda" else None, most)
        for function in functions:
            self._profile.measure(function)

    def measure_worker(self, functions: Iterable[Measured]) -> None:
        """Measure the functions of a server's worker, and those of what it computes with."""
        self.measure([*_of_components(self._components), *functions])

    def send(self) -> None:
        """Leave what was measured where rank 0 finds it."""
        if self._profile is not None:
            rank = self._rendezvous.rank
            # Any, since a store takes bytes too, which its stub does not know.
            packed: Any = profile_file.pack(self._profile.rows(f"rank {rank}"))
            self._rendezvous.store.set(_key(rank), packed)


def gather(components: RunComponents, rendezvous: Rendezvous) -> list[ProfileRow]:
    """Return on rank 0 what the other ranks measured, none if `run.profile` does not ask for it."""
    rows: list[ProfileRow] = []
    end = time.monotonic() + PATIENCE
    for rank in range(1, rendezvous.world) if components.cfg.run.profile else ():
        left = datetime.timedelta(seconds=max(0.1, end - time.monotonic()))
        try:
            rendezvous.store.wait([_key(rank)], left)
            rows += profile_file.unpack(rendezvous.store.get(_key(rank)))
        except RuntimeError:
            log.warning("rank %d left no profile", rank)
    return rows


def _key(rank: int) -> str:
    return f"profile of rank {rank}"


def _of_components(components: RunComponents) -> Iterable[Measured]:
    """Yield the functions that compute and give batches, of each process that does."""
    oracle, batches = components.oracle, components.batches
    for name in ("gradient", "reference_gradient", "gradient_sum", "gradient_and_norms"):
        yield ProfiledCall(oracle, name, GRADIENTS)
    for name in ("rows", "expect"):
        yield ProfiledCall(oracle, name, DATA)
    for name in ("batch", "rows", "expect"):
        yield ProfiledCall(oracle.split, name, DATA)
    for name in ("batch", "shares", "shard", "draw"):
        yield ProfiledCall(batches, name, DATA)


def _common(control: TrainControl, writer: RunWriter | None, executor: Executor) -> Iterable[Measured]:
    """Yield the other functions that all executors call."""
    yield ProfiledCall(control, "evaluate", EVALUATION)
    for name in ("advance", "spend", "_checkpoint"):
        yield ProfiledCall(control, name, LOGGING)
    for name in ("log", "finish"):
        yield ProfiledCall(writer, name, LOGGING)
    for name in ("span", "spans", "task", "staleness", "round_trip", "flush", "write"):
        yield ProfiledCall(executor.timeline, name, LOGGING)
    for name in ("push", "barrier", "lost", "resumed", "flush"):
        yield ProfiledCall(getattr(executor, "recorder", None), name, LOGGING)


def _settle() -> None:
    # A graph that is being captured must not be waited for.
    if not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()
