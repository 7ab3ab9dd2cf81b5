"""What a run shows instead of training: its cost, the price of communication, its schedule, given weights' scores."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from runner.processes.rendezvous import launched_by_torchrun
from runner.train import advise, estimate, evaluate_run, plot_schedule, ranks, replay
from runner.train.build import build_run


def preview(cfg: DictConfig) -> int:
    """Show what `run.plot_schedule`, `.advise`, `.estimate` or `.evaluate_only` asks for, and train nothing.

    It is shown for the workers that the run would have: `torchrun`'s, or those of the trace to replay. Under `torchrun`
    rank 0 shows it, the others say nothing.

    Returns:
        The exit code, 0.

    Raises:
        InputError: wrong input, as for the run itself.
    """
    if cfg.cluster.kind == "replay":
        # For the number of workers, which it sets; the trace itself is not needed.
        replay.read_trace(cfg, cfg.cluster.trace)
    elif cfg.cluster.kind == "processes" and launched_by_torchrun():
        ranks.set_torchrun_workers(cfg, int(os.environ["WORLD_SIZE"]))
        if int(os.environ["RANK"]):
            return 0
    if cfg.run.plot_schedule:
        return plot_schedule.show(cfg)
    # As for the run itself, so that what it would refuse is refused here.
    components = build_run(cfg)
    if cfg.run.evaluate_only:
        return evaluate_run.show(components)
    return advise.show(components) if cfg.run.advise else estimate.show(components)
