"""The clock alone: `run.timing_only=true` makes a run's events without its network, at hundreds of thousands a second.

The events are those of the simulated run of the same configuration, at the same virtual seconds: both take them from
the clock of their topology (`simulated.events`, `.collective_clock`, `.memory_clock`, `.pipeline_clock`). The network
is built once, for the number of its weights and a pipeline's shares of the work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from runner.loop.executor import MetricsLogger
from runner.loop.stop_signals import StopSignals
from runner.loop.train_control import next_due
from runner.run_folder import checkpoint, columns, folders, machine, summary_keys
from runner.run_folder.run_writer import RunWriter
from runner.simulated.timing_run import TimingRun
from runner.train.components import RunComponents
from runner.train.executors import topology_of
from runner.train.train import run_facts

log = logging.getLogger("dcrun")

AT_ONCE = 50_000
"""Events between two looks at the display and at signals."""
FEW_TASKS = 10
"""Gradients of a worker below which a run is mostly its own beginning and end."""


def time_run(components: RunComponents, folder: Path) -> int:
    """Let the clock of a run go from its first event to its last, and write the run folder.

    Args:
        components: what the run is made of.
        folder: the run folder.

    Returns:
        The exit code: 0, or 128 + n if signal n stopped the run.
    """
    cfg = components.cfg
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    run = topology_of(type(components.method)).time(components)
    _warn_if_short(components)
    with folders.run_lock(folder), StopSignals() as stop:
        # Of a run that is made anew in its folder: nobody must continue what was there.
        checkpoint.clear(folder)
        with RunWriter(folder, plain, epochs=cfg.run.epochs, virtual=True) as writer:
            writer.start({**run_facts(components), summary_keys.TIMING_ONLY: True})
            wall = drive(run, cfg.run.eval_every, writer, lambda: bool(stop))
            run.timeline.write(folder, run.seconds)
            status = summary_keys.COMPLETED if run.finished else summary_keys.INTERRUPTED
            writer.finish(status, **results(run), **_speed(run, wall), **_memory(components))
    return 0 if run.finished else stop.exit_code or 1


def drive(run: TimingRun, every: float, logger: MetricsLogger, stopping: Callable[[], bool]) -> float:
    """Let the clock go to the end, or until it is asked to stop, with a row every so many effective passes.

    Returns:
        The wall seconds that the clock took.
    """
    due, wall = every, 0.0
    while not run.finished and not stopping():
        begin = time.perf_counter()
        run.advance(due, AT_ONCE)
        wall += time.perf_counter() - begin
        logger.progress(epoch=run.epoch, samples=round(run.samples_seen))
        if run.finished or run.reached(due):
            due = next_due(due, every, run.epoch) if run.reached(due) else due
            logger.log(row_of(run))
    return wall


def row_of(run: TimingRun) -> dict[str, Any]:
    """Return a row of metrics: the columns of every run, those of losses and rates with null."""
    mean, largest = run.timeline.staleness_since_last()
    return {
        **dict.fromkeys(columns.STANDARD),
        columns.EPOCH: run.epoch,
        columns.SAMPLES: round(run.samples_seen),
        columns.UPDATES: run.updates,
        columns.SECONDS: run.seconds,
        columns.STALENESS_MEAN: mean,
        columns.STALENESS_MAX: largest,
        **run.columns(),
    }


def results(run: TimingRun) -> dict[str, Any]:
    """Return what the clock says of a whole run, for `summary.json`."""
    seconds, timeline = run.seconds, run.timeline
    shares = timeline.shares(seconds)
    return {
        "epochs": run.epoch,
        "samples": round(run.samples_seen),
        "updates": run.updates,
        "seconds": seconds,
        "workers_lost": 0,
        summary_keys.EVENTS: run.events,
        summary_keys.VIRTUAL_SAMPLES: run.samples_seen / seconds if seconds else None,
        summary_keys.VIRTUAL_GRADIENTS: run.events / seconds if seconds else None,
        summary_keys.EPOCH_SECONDS: seconds / run.epoch if run.epoch else None,
        **{key: shares[kind] for kind, key in summary_keys.SHARES.items()},
        summary_keys.BYTES_SENT: run.nbytes,
        columns.STALENESS_MEAN: timeline.staleness_mean,
        columns.STALENESS_MAX: timeline.staleness_max,
        # Of each worker `workers.json` tells: a summary is no place for thousands of numbers.
        **{key: value for key, value in timeline.slowest(seconds).items() if key == "slowest"},
        **run.columns(),
    }


def _speed(run: TimingRun, wall: float) -> dict[str, Any]:
    return {"train_wall_seconds": wall, summary_keys.EVENTS_PER_SECOND: run.events / wall if wall else None}


def _memory(components: RunComponents) -> dict[str, Any]:
    return {"peak_memory_bytes": machine.peak_memory_bytes(components.device)}


def _warn_if_short(components: RunComponents) -> None:
    """Say so if workers have so few gradients that the numbers are those of a start rather than of a long run."""
    total = len(components.batches) * (components.workers if components.method.steps_together else 1)
    if not components.method.cuts_network and total < FEW_TASKS * components.workers:
        epochs = components.cfg.run.epochs * FEW_TASKS * components.workers / total
        log.warning(
            "%d workers make %d gradients in all, fewer than %d each; run.epochs=%.3g would give so many",
            components.workers,
            total,
            FEW_TASKS,
            epochs,
        )
