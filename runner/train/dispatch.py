"""Choose what a composed configuration asks for: a preview, a simulation, real processes or a replay.

The way of a run from its command line to the training loop, four calls of ours:

    cli.main.main                composes and checks the line
      cli.start.begin              locks the run folder; Hydra writes its files and calls back
        cli.start.NewRun             catches what goes wrong, as an exit code
          train.dispatch.dispatch      here
            train.train.train            opens the run folder, restores a checkpoint
              Executor.run                 the training loop

A continued run and a rank that `torchrun` started have their folder already, or none, and come without Hydra's call.
Spawned ranks begin in `processes.child`, which calls `train.ranks.run_rank`, and that calls `train`.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from runner.config import startup, timing_only
from runner.config.old_names import rename_targets
from runner.run_folder import kept_delays
from runner.run_folder.console import show_result
from runner.run_folder.contents import read_metrics, read_summary
from runner.run_folder.summary_keys import COMPLETED, ENDED, STATUS
from runner.train import executors, extend, ranks, replay, targets
from runner.train.build import build_run
from runner.train.preview import preview
from runner.train.timing_only import time_run
from runner.train.train import train


def dispatch(cfg: DictConfig, folder: Path | None) -> int:
    """Do what `cfg` describes.

    Args:
        cfg: the composed configuration, with the section `names` (the options chosen of each group).
        folder: the run folder; None on a process that torchrun started and that is not rank 0.

    Returns:
        The exit code: 0 completed or diverged, 3 a dead or stuck peer, 128 + n stopped by signal n.

    Raises:
        InputError: wrong input.
    """
    startup.current().enter(startup.BUILD)
    # The configuration of a run that goes on may be as old as the run.
    rename_targets(cfg)
    targets.check_found(cfg)
    # Before anything is looked up in a run folder or spawned: these train nothing.
    if cfg.run.plot_schedule or cfg.run.advise or cfg.run.estimate or cfg.run.evaluate_only:
        return preview(cfg)
    # Before anything is built: of a run that has ended only the result is shown again, unless it is made longer.
    if folder is not None and cfg.run.resume:
        # The folder's own configuration says so, which was checked when the run began.
        timing_only.check(cfg.run, cfg.cluster)
        if extend.is_longer(cfg, folder):
            extend.extend(cfg, folder)
        elif _completed(cfg, folder):
            return ranks.end_with_rank_0(cfg, folder)
    if cfg.cluster.kind == "processes":
        return ranks.run_on_processes(cfg, folder)
    # Only ranks of a run on processes go without a folder.
    assert folder is not None
    if cfg.cluster.kind == "replay":
        return replay.run_replay(cfg, folder)
    # Built before `train` opens the folder: wrong input must leave it as it was.
    components = build_run(cfg)
    # Before the clock is made, which then reads the copy.
    kept_delays.keep(cfg, folder, components.workers)
    if cfg.run.timing_only:
        return time_run(components, folder)
    return train(components, folder, lambda control: executors.simulated(components, control, folder), virtual=True)


def _completed(cfg: DictConfig, folder: Path) -> bool:
    """Show the result of a run that has already come to its end, and say that it stays what it is."""
    summary = read_summary(folder)
    if (status := summary.get(STATUS)) not in ENDED:
        return False
    curve = [row.get("test_error") for row in read_metrics(folder)]
    show_result(Console(), summary, folder, lr=cfg.schedule.lr, curve=curve)
    longer = f"; run.epochs=<more than {cfg.run.epochs:g}> makes it longer" if status == COMPLETED else ""
    print(f"nothing was done: this run had come to its end ({status}){longer}")
    return True
