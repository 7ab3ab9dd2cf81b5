"""Train: drive an executor from the first batch, or from a checkpoint, to a written result."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from runner.config import delays
from runner.config.errors import InputError
from runner.config.exit_codes import UNEXPECTED
from runner.loop.executor import Executor
from runner.loop.stop import Exploded, PeerLost, Stop
from runner.loop.stop_signals import StopSignals
from runner.loop.train_control import TrainControl
from runner.processes.spawn import resume_hint
from runner.run_folder import checkpoint, folders, machine, profile_file, weights
from runner.run_folder.console import sizes_line
from runner.run_folder.contents import has_checkpoints
from runner.run_folder.fingerprint import weights_sha256
from runner.run_folder.profile_file import ProfileRow
from runner.run_folder.run_writer import RunWriter
from runner.run_folder.summary_keys import (
    BYTES_SENT,
    COMPLETED,
    DELAYS_SHA256,
    INTERRUPTED,
    PRUNED,
    TEST_SAMPLES,
    TRAIN_SAMPLES,
    VALIDATION_SAMPLES,
)
from runner.train.components import RunComponents
from runner.train.profiling import profile
from runner.train.pruning import Judge, judge_of_this_run

log = logging.getLogger("dcrun")


def train(
    components: RunComponents,
    folder: Path,
    make_executor: Callable[[TrainControl], Executor],
    *,
    virtual: bool,
    share_checkpoint: Callable[[dict[str, Any] | None], object] = lambda state: None,
    report_step: Callable[[int], None] = lambda updates: None,
    watched: bool = False,
    other_profiles: Callable[[], Sequence[ProfileRow]] = tuple,
) -> int:
    """Train with the executor that `make_executor` returns, and write the run folder.

    Args:
        components: what the run is made of.
        folder: the run folder.
        make_executor: builds the executor for its training control.
        virtual: whether seconds are virtual.
        share_checkpoint: gives the checkpoint that the run goes on from (None for a fresh run) to the other ranks.
        report_step: told the number of updates after each of them.
        watched: whether a launcher says which peer was lost, and why; it knows better than a broken connection.
        other_profiles: returns what the other ranks measured; asked at the end, if this one measures.

    Returns:
        The exit code.
    """
    # The command holds the lock already, and this does nothing then; who trains without the command is guarded too.
    with folders.run_lock(folder), StopSignals() as stop:
        saved = _checkpoint(components, folder)
        with _writer(components, folder, virtual) as writer:
            judge = judge_of_this_run()
            control = _control(components, folder, writer, stop, saved, report_step, judge)
            # Built before it is restored: on processes the ranks connect while it is built, and the checkpoint is then
            # sent through these connections.
            executor = make_executor(control)
            # Ranks join in this whether there is a checkpoint or not: it tells them so.
            share_checkpoint(saved)
            if saved is not None:
                restore(saved, control, executor)
            # Last, so that the display begins at the numbers that were restored.
            facts = run_facts(components)
            writer.start(facts, None if saved is None else saved["tracker"])
            log.info("samples: %s", sizes_line(facts))
            # The first flush cuts `timeline.jsonl` back to the lines that the checkpoint knew.
            executor.timeline.flush(folder)
            status, code, error = COMPLETED, 0, {}
            # From here on: what was before is the start, of which the writer knows.
            measured = profile(components, control, writer, executor)
            try:
                # A run that was killed when it had been judged, and had not yet said so. On processes the other ranks
                # wait for their work already: there the next evaluation ends it.
                if virtual and judge is not None and judge.prunes(writer.rows):
                    raise Stop(PRUNED)
                executor.run()
            except Stop as reason:
                # Stop comes out of the middle of a step, with the clock of training running.
                control.pause()
                status, code, error = reason.status, reason.code, _said(reason, folder, watched)
            # After a stop too: the result of an interrupted run is what it had reached.
            unwritten = _write_result(components, control, executor, folder)
            if unwritten and status == COMPLETED:
                # Nothing is lost that cannot be made again from the last checkpoint, when there is room.
                status, code, error = INTERRUPTED, UNEXPECTED, {"error": unwritten}
            writer.finish(status, **_results(components, control, executor), **error)
            if measured is not None:
                profile_file.write([*measured.rows("the run"), *other_profiles()], folder, writer.display.console)
    # Another rank may have been asked to stop in place of this one; by which signal is not known here.
    return code or (stop.exit_code or 128 + signal.SIGTERM if status == INTERRUPTED else 0)


def restore(saved: dict[str, Any], control: TrainControl, executor: Executor) -> None:
    """Put a rank back to where a checkpoint was saved; `executor.run` then continues."""
    # The control before the executor, whose state is told in the control's counts.
    control.load_state_dict(saved["course"])
    executor.load_state_dict(saved["executor"])
    # Checkpoints of earlier versions do not say what was sent before them.
    executor.bytes_sent = saved.get("bytes_sent")


def _writer(components: RunComponents, folder: Path, virtual: bool) -> RunWriter:
    plain: Any = OmegaConf.to_container(components.cfg, resolve=True)
    return RunWriter(folder, plain, epochs=components.cfg.run.epochs, virtual=virtual)


def _control(
    components: RunComponents,
    folder: Path,
    writer: RunWriter,
    stop: StopSignals,
    saved: dict[str, Any] | None,
    report_step: Callable[[int], None],
    judge: Judge | None,
) -> TrainControl:
    """Return the control of the rank that owns the run folder."""
    run = components.cfg.run

    def save(updates: int, state: dict[str, Any]) -> None:
        # The tracker is the writer's part: how many rows there are, the wall seconds before, wandb's run.
        # Rows that wait for room on the disk are lost to who resumes, so there is no checkpoint that counts them.
        if writer.write_rows():
            checkpoint.save(folder, updates, {**state, "tracker": writer.state_dict()}, run.keep_checkpoints)

    return components.train_control(
        evaluator=components.evaluator(),
        validator=components.validator(),
        logger=writer,
        folder=folder,
        save=save,
        # Asked anew each time: `stop` changes when a signal comes.
        stopping=lambda: bool(stop),
        # Lines that were written after the checkpoint are cut off: the run makes them again.
        observers=components.observers(folder, 0 if saved is None else saved["tracker"]["rows"]),
        target_loss=run.target_loss,
        report_step=report_step,
        # All rows, as the writer has them: those before a resume are part of what is judged.
        prunes=lambda row: judge is not None and judge.prunes(writer.rows),
        measure=components.measure,
        classifies=components.classifies,
    )


def _said(reason: Stop, folder: Path, watched: bool) -> dict[str, str]:
    """Log why a run stopped if a peer is at fault; return what the summary says of that, or of a loss that exploded."""
    if isinstance(reason, Exploded):
        return {"error": reason.message}
    if not isinstance(reason, PeerLost):
        return {}
    # The launcher prints its own line on the terminal; this one then goes to dcrun.log alone.
    level = logging.INFO if watched else logging.ERROR
    log.log(level, "%s; the run stopped, %s", reason.message, resume_hint(folder))
    return {"error": reason.message}


def _checkpoint(components: RunComponents, folder: Path) -> dict[str, Any] | None:
    """Return the checkpoint that the run goes on from, None for a new run.

    Asked for before the writer begins: a damaged or missing checkpoint is refused while the folder is as it was.
    """
    if not components.cfg.run.resume:
        # Of a run that is made anew in its folder: a later resume must not find what the old one had saved.
        checkpoint.clear(folder)
        return None
    found = checkpoint.newest_intact(folder)
    if found is None:
        raise InputError.of("run.resume", str(folder), "holds no intact checkpoint", "the folder of a stopped run")
    state, path = found
    log.info("resuming from %s", path.name)
    return state


def run_facts(components: RunComponents) -> dict[str, Any]:
    """Return what a summary says of a run from its beginning."""
    cfg = components.cfg
    place = cfg.cluster.compute.delays
    return {
        **{group: cfg.names[group] for group in ("algorithm", "model", "dataset", "cluster")},
        "workers": components.workers,
        "seed": cfg.seed,
        "parameters": components.parameters,
        TRAIN_SAMPLES: components.samples,
        VALIDATION_SAMPLES: None if components.validation is None else len(components.validation),
        TEST_SAMPLES: len(components.dataset.test) or None,
        "dataset_fingerprint": components.dataset.fingerprint,
        **({} if place is None else {DELAYS_SHA256: delays.read(place).sha256}),
        **machine.facts(components.device),
    }


def _write_result(components: RunComponents, control: TrainControl, executor: Executor, folder: Path) -> str | None:
    """Write the weights and what each worker did; return what could not be written and why, None if all was."""
    replica = components.oracle.replica
    # An ordinary state dict: it loads into the network without dcrun. As arrays, which may be views of one vector.
    state = replica.state_dict(executor.weights(), executor.running_statistics(), control.updates)
    try:
        weights.write(folder, {name: tensor.numpy() for name, tensor in state.items()})
        executor.timeline.write(folder, control.seconds)
    except OSError as error:
        said = f"the result could not be written ({error.strerror or error})"
        then = resume_hint(folder) if has_checkpoints(folder) else "start it again, for no checkpoint did fit either"
        log.error("%s; make room, then %s", said, then)
        return said
    return None


def _results(components: RunComponents, control: TrainControl, executor: Executor) -> dict[str, Any]:
    replica = components.oracle.replica
    vector, statistics = executor.weights(), executor.running_statistics()
    reached = {} if control.target_loss is None else {"epochs_to_target": control.epochs_to_target}
    return reached | {
        "workers_lost": executor.workers_lost,
        "epochs": control.epoch,
        "samples": round(control.samples_seen),
        "updates": control.updates,
        "seconds": control.seconds,
        # By the wall clock of training alone; evaluations and checkpoints do not count.
        "samples_per_second": control.samples_seen / control.train_wall if control.train_wall else None,
        "train_wall_seconds": control.train_wall,
        BYTES_SENT: executor.bytes_sent,
        "peak_memory_bytes": machine.peak_memory_bytes(components.device),
        "weights_sha256": weights_sha256(replica.named_weights(vector)),
        "buffers_sha256": weights_sha256(replica.named_statistics(statistics)),
        **executor.timeline.slowest(control.seconds),
        **executor.columns(),
        # At the weights that are saved: a run that was stopped may have moved on since its last row.
        **components.measure(vector, executor),
    }
