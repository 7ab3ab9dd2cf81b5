"""What a run answers instead of training: its cost, the price of communication, its schedule."""

from __future__ import annotations

import os

from hydra.utils import get_class
from omegaconf import DictConfig

from algorithms.base import ParameterServer
from runner import advise, build, estimate, links, plot_schedule, processes, replay


def answer(cfg: DictConfig) -> int:
    """Answer for the workers that the run would have: `torchrun`'s, or those of the trace to replay.

    Under `torchrun` rank 0 answers, the others say nothing.

    Returns:
        The exit code, 0.

    Raises:
        InputError: wrong input, as for the run itself.
    """
    if cfg.cluster.kind == "replay":
        replay.recorded(cfg, cfg.cluster.trace)
    elif cfg.cluster.kind == "processes" and links.expected():
        servers = 1 if issubclass(get_class(cfg.algorithm._target_), ParameterServer) else 0
        processes.fit(cfg, int(os.environ["WORLD_SIZE"]) - servers)
        if int(os.environ["RANK"]):
            return 0
    if cfg.run.plot_schedule:
        return plot_schedule.show(cfg)
    parts = build.load(cfg)
    return advise.show(parts) if cfg.run.advise else estimate.show(parts)
