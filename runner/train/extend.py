"""Makes a run longer: `run.resume=DIR run.epochs=20` after 10 epochs ends with the bits of a run of 20 in one piece.

The longer run may go on from any checkpoint at which the shorter one did nothing that the longer one would not have
done. Towards its end it does: asynchronous workers that ask for a batch get none, and a last evaluation falls where the
longer run has none. So it is the newest checkpoint before that, and what was trained after it is trained again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.run_folder import checkpoint, columns, trace
from runner.run_folder.contents import CONFIG, SUMMARY, has_checkpoints, read_metrics, read_summary
from runner.run_folder.jsonl import replace, write_document
from runner.run_folder.summary_keys import COMPLETED, DIVERGED, INTERRUPTED, STATUS

log = logging.getLogger("dcrun")

KEY = "run.epochs"
OVERRIDES = ".hydra/overrides.yaml"


def is_longer(cfg: DictConfig, folder: Path) -> bool:
    """Return whether the configuration asks for more epochs than the run in the folder was to have."""
    path = folder / CONFIG
    return path.is_file() and cfg.run.epochs > OmegaConf.load(path).run.epochs


def extend(cfg: DictConfig, folder: Path) -> None:
    """Make a run folder that of a longer run which was stopped at one of its checkpoints.

    Raises:
        InputError: the longer run would not have come by any checkpoint of this one.
    """
    summary = read_summary(folder)
    _refuse(cfg, summary)
    if not has_checkpoints(folder):
        what = "the run has no checkpoints (dcreport --clean removes those of finished runs)"
        raise InputError.of(KEY, cfg.run.epochs, what, f"a new run of {cfg.run.epochs:g}")
    rows = read_metrics(folder)
    # Of a run that is still to make its end, every checkpoint is of a time before it.
    ended = summary.get(STATUS) == COMPLETED
    handed_out: list[int] = []
    found = checkpoint.newest_intact(
        folder, lambda state: not ended or _of_longer_run(state, rows, cfg.run.eval_every, handed_out)
    )
    if found is None:
        what = "its checkpoints are of its end, when workers were out of batches or had met for a last evaluation"
        # With two and none of them before the end, the run was too short to have one there.
        more = "; run.keep_checkpoints=2 keeps one that can go on" if cfg.run.keep_checkpoints < 2 else ""
        allowed = f"a new run of {cfg.run.epochs:g}{more}"
        raise InputError.of(KEY, cfg.run.epochs, what, allowed)
    _, path = found
    # In this order a kill leaves, after each step, a folder that can be continued: as the shorter run, which makes its
    # end again from what is left, or as the longer one.
    write_document(folder / SUMMARY, {**summary, STATUS: INTERRUPTED})
    checkpoint.clear(folder, above=path)
    _write_epochs(folder, cfg.run.epochs)
    log.info("the run is made longer, to %g epochs, from %s", cfg.run.epochs, path.name)


def _refuse(cfg: DictConfig, summary: dict[str, Any]) -> None:
    """Refuse a run whose end was not that of its epochs."""
    new = f"a new run with {KEY}={cfg.run.epochs:g}"
    if summary.get(STATUS) == DIVERGED:
        raise InputError.of(KEY, cfg.run.epochs, "the run has diverged, and more epochs change nothing", new)
    if summary.get("epochs_to_target") is not None:
        what = f"the run has ended at its run.target_loss={cfg.run.target_loss:g}, and more epochs change nothing"
        raise InputError.of(KEY, cfg.run.epochs, what, new)
    if cfg.cluster.kind == "replay":
        raise InputError.of(KEY, cfg.run.epochs, "a replay ends with its trace", "that of the trace")


def _of_longer_run(state: dict[str, Any], rows: list[dict[str, Any]], eval_every: float, handed_out: list[int]) -> bool:
    """Return whether a longer run would have made a checkpoint with the same state.

    Args:
        state: of a checkpoint of a run that came to its end.
        rows: the run's evaluations.
        eval_every: effective passes between them.
        handed_out: gets the number of batches that were handed out until the checkpoint; the newest one's comes first.
    """
    if leases := state["executor"].get("leases"):
        handed_out.append(leases["next"])
        # With batches left, idle workers wait for a barrier, as in a longer run.
        if leases["idle"] and leases["next"] >= handed_out[0]:
            return False
        # A longer run would have had more batches for these local steps.
        if leases.get("cut_short"):
            return False
    # An evaluation that was due is the first one since `grid`.
    grid, count = state["course"]["next_eval"] - eval_every, state["tracker"]["rows"]
    before = rows[: count - 1][-1][columns.EPOCH] if count > 1 and rows else 0.0
    return before < grid - 1e-9


def _write_epochs(folder: Path, epochs: float) -> None:
    """Write the number of epochs wherever the run folder has it for others: its configuration and its trace."""
    recorded = folder / trace.FILE
    if recorded.is_file():
        # Only the first line names the length; the messages are those of the longer run as well.
        first, newline, rest = recorded.read_bytes().partition(b"\n")
        replace(recorded, trace.with_epochs(first, epochs) + newline + rest)
    # For `dcreport` and replays, which repeat a run by its command line.
    path = folder / OVERRIDES
    if path.is_file():
        kept = [text for text in map(str, OmegaConf.load(path)) if text.lstrip("+").partition("=")[0] != KEY]
        replace(path, OmegaConf.to_yaml(OmegaConf.create([*kept, f"{KEY}={epochs:g}"])).encode())
    # Last: from here on the run is the longer one.
    stored = OmegaConf.load(folder / CONFIG)
    stored.run.epochs = epochs
    replace(folder / CONFIG, OmegaConf.to_yaml(stored).encode())
