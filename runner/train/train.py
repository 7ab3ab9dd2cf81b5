"""Execute a composed configuration: build its parts, choose an executor, train, and leave the result behind."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf
from safetensors.numpy import save_file
from torch import Tensor

from runner.config.errors import InputError
from runner.loop.stop import PeerLost, Stop
from runner.loop.stop_signals import StopSignals
from runner.loop.train_control import TrainControl
from runner.processes.spawn import resume_hint
from runner.run_folder import checkpoint, folders, machine
from runner.run_folder.fingerprint import weights_sha256
from runner.run_folder.run_writer import RunWriter
from runner.run_folder.timeline import Activity
from runner.train import build

log = logging.getLogger("dcrun")


class Executor(Protocol):
    """Runs a method to the end of its batches."""

    activity: Activity

    def run(self) -> None:
        """Run to the end; raises `runner.loop.stop.Stop` to end earlier."""
        ...

    def weights(self) -> Tensor:
        """Return the flat weights of the solution."""
        ...

    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        ...

    def columns(self) -> dict[str, float]:
        """Return what the executor adds to a row of metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        ...


def train(
    parts: build.RunComponents,
    folder: Path,
    *,
    virtual: bool,
    make: Callable[[TrainControl], Executor],
    lost: Callable[[], int] = lambda: 0,
    share: Callable[[dict[str, Any] | None], object] = lambda state: None,
    report_step: Callable[[int], None] = lambda updates: None,
    watched: bool = False,
) -> int:
    """Train with the executor that `make` returns, and write the run folder.

    Args:
        parts: the parts of the run.
        folder: the run folder.
        virtual: whether seconds are virtual.
        make: builds the executor for its training control.
        lost: returns the number of workers lost.
        share: gives the checkpoint that the run goes on from (None for a fresh run) to the other ranks.
        report_step: told the number of updates after each of them.
        watched: whether a launcher says which peer was lost, and why; it knows better than a broken connection.

    Returns:
        The exit code.
    """
    cfg = parts.cfg
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    resumed = _checkpoint(folder) if cfg.run.resume else None
    if resumed is None:
        checkpoint.clear(folder)
    with (
        folders.run_lock(folder),
        StopSignals() as stop,
        RunWriter(folder, plain, epochs=cfg.run.epochs, virtual=virtual) as writer,
    ):

        def save(updates: int, state: dict[str, Any]) -> None:
            checkpoint.save(folder, updates, {**state, "tracker": writer.state_dict()}, cfg.run.keep_checkpoints)

        control = TrainControl(
            samples=len(parts.dataset.train),
            epochs=cfg.run.epochs,
            eval_every=cfg.run.eval_every,
            checkpoint_every=cfg.run.checkpoint_every or cfg.run.eval_every,
            schedule=parts.schedule,
            evaluator=parts.evaluator(),
            logger=writer,
            folder=folder,
            save=save,
            stopping=lambda: bool(stop),
            observers=parts.observers(folder, 0 if resumed is None else resumed["tracker"]["rows"]),
            target_loss=cfg.run.target_loss,
            report_step=report_step,
            measure=parts.measure,
            classifies=parts.classifies,
        )
        executor = make(control)
        share(resumed)
        if resumed is not None:
            control.load_state_dict(resumed["course"])
            executor.load_state_dict(resumed["executor"])
        writer.start(_facts(parts), None if resumed is None else resumed["tracker"])
        executor.activity.flush(folder)
        status, code = "completed", 0
        extra: dict[str, Any] = {}
        try:
            executor.run()
        except Stop as reason:
            status, code = reason.status, reason.code
            control.pause()
            if isinstance(reason, PeerLost):
                level = logging.INFO if watched else logging.ERROR
                log.log(level, "%s; the run stopped, %s", reason.message, resume_hint(folder))
                extra["error"] = reason.message
        writer.finish(status, workers_lost=lost(), **_results(parts, control, executor, folder), **extra)
    # Another rank that was asked to stop had SIGTERM: it catches no other signal.
    return code or (stop.exit_code or 128 + signal.SIGTERM if status == "interrupted" else 0)


def _checkpoint(folder: Path) -> dict[str, Any]:
    found = checkpoint.newest_intact(folder)
    if found is None:
        raise InputError.of("run.resume", str(folder), "holds no intact checkpoint", "the folder of a stopped run")
    state, path = found
    log.info("resuming from %s", path.name)
    return state


def _facts(parts: build.RunComponents) -> dict[str, Any]:
    cfg = parts.cfg
    return {
        **{group: cfg.names[group] for group in ("algorithm", "model", "dataset", "cluster")},
        "workers": parts.workers,
        "seed": cfg.seed,
        "parameters": parts.oracle.replica.weights.numel(),
        "dataset_fingerprint": parts.dataset.fingerprint,
        **machine.facts(parts.device),
    }


def _results(parts: build.RunComponents, control: TrainControl, executor: Executor, folder: Path) -> dict[str, Any]:
    replica = parts.oracle.replica
    weights, statistics = executor.weights(), executor.running_statistics()
    # As arrays, which may be views of one vector: the torch form of save_file wants a copy of each tensor.
    state = replica.state_dict(weights, statistics, control.updates)
    save_file({name: tensor.numpy() for name, tensor in state.items()}, folder / "weights.safetensors")
    executor.activity.write(folder, control.seconds)
    reached = {} if control.target_loss is None else {"epochs_to_target": control.epochs_to_target}
    return reached | {
        "epochs": control.epoch,
        "samples": round(control.samples_seen),
        "updates": control.updates,
        "seconds": control.seconds,
        "samples_per_second": control.samples_seen / control.train_wall if control.train_wall else None,
        "train_wall_seconds": control.train_wall,
        "peak_memory_bytes": machine.peak_memory_bytes(parts.device),
        "weights_sha256": weights_sha256(replica.named_weights(weights)),
        "buffers_sha256": weights_sha256(replica.named_statistics(statistics)),
        **executor.activity.slowest(control.seconds),
        **executor.columns(),
        **parts.measure(weights, executor),
    }
