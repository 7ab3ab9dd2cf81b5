"""What a run answers instead of training: its cost, the price of communication, its schedule."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from runner.processes.rendezvous import launched_by_torchrun
from runner.train import advise, build, estimate, plot_schedule, ranks, replay


def preview(cfg: DictConfig) -> int:
    """Answer for the workers that the run would have: `torchrun`'s, or those of the trace to replay.

    Under `torchrun` rank 0 answers, the others say nothing.

    Returns:
        The exit code, 0.

    Raises:
        InputError: wrong input, as for the run itself.
    """
    if cfg.cluster.kind == "replay":
        replay.recorded(cfg, cfg.cluster.trace)
    elif cfg.cluster.kind == "processes" and launched_by_torchrun():
        ranks.fit(cfg, int(os.environ["WORLD_SIZE"]))
        if int(os.environ["RANK"]):
            return 0
    if cfg.run.plot_schedule:
        return plot_schedule.show(cfg)
    parts = build.build_run(cfg)
    return advise.show(parts) if cfg.run.advise else estimate.show(parts)
