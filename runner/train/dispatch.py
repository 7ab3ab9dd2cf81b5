"""Choose what a composed configuration asks for: a preview, a simulation, real processes or a replay."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from runner.config.old_names import rename_targets
from runner.run_folder.console import show_result
from runner.run_folder.contents import read_metrics, read_summary
from runner.train import build, executors, ranks, replay
from runner.train.preview import preview
from runner.train.train import train


def dispatch(cfg: DictConfig, folder: Path | None) -> int:
    """Run what `cfg` describes.

    Args:
        cfg: the composed configuration, with the section `names` (the options chosen of each group).
        folder: the run folder; None on a process that torchrun started and that is not rank 0.

    Returns:
        The exit code: 0 completed or diverged, 3 a dead or stuck peer, 130 or 143 stopped by a signal.

    Raises:
        InputError: wrong input.
    """
    # The configuration of a run that goes on may be as old as the run.
    rename_targets(cfg)
    if cfg.run.plot_schedule or cfg.run.advise or cfg.run.estimate:
        return preview(cfg)
    if folder is not None and cfg.run.resume and _completed(cfg, folder):
        return 0
    if cfg.cluster.kind == "processes":
        return ranks.run_on_processes(cfg, folder)
    assert folder is not None
    if cfg.cluster.kind == "replay":
        return replay.run_replay(cfg, folder)
    parts = build.build_run(cfg)
    return train(parts, folder, virtual=True, make=lambda control: executors.simulated(parts, control, folder))


def _completed(cfg: DictConfig, folder: Path) -> bool:
    """Show the result of a run that has already come to its end."""
    summary = read_summary(folder)
    if summary.get("status") not in ("completed", "diverged"):
        return False
    curve = [row.get("test_error") for row in read_metrics(folder)]
    show_result(Console(), summary, folder, lr=cfg.schedule.lr, curve=curve)
    return True
