"""How many workers a run has, and how many samples they use for an update."""

from __future__ import annotations

from omegaconf import DictConfig

from algorithms.base import Stateful
from runner.config import delays
from runner.config.errors import InputError
from runner.config.validation import check_each


def workers_of(cfg: DictConfig, algorithm: type[Stateful]) -> int:
    """Return the number of workers: the user's, else the algorithm's own.

    Raises:
        InputError: more workers than the algorithm can use; a list or a file of delays that names others than these.
    """
    workers, most = cfg.cluster.workers, algorithm.max_workers
    if workers is None:
        workers = algorithm.default_workers
    elif most is not None and workers > most:
        what = f"algorithm={cfg.names.algorithm} runs on " + ("one worker" if most == 1 else f"at most {most} workers")
        raise InputError.of("cluster.workers", workers, what, "1, or null" if most == 1 else f"1 to {most}, or null")
    # Here, since only now the number is known if the user gave none.
    check_each(cfg.cluster, workers)
    if cfg.cluster.compute.delays is not None:
        delays.read(cfg.cluster.compute.delays, workers)
    return workers


def set_workers(cfg: DictConfig, workers: int, said: str) -> None:
    """Set `cluster.workers` to a number that is not the user's to choose: that of `torchrun`, or of a trace.

    Args:
        cfg: the composed configuration.
        workers: number of workers M.
        said: who decides, as "the trace was recorded with 3".

    Raises:
        InputError: the user gave another number.
    """
    # The same number may be said twice; another one would be ignored without a word.
    given = cfg.cluster.workers
    if given is not None and given != workers:
        raise InputError.of("cluster.workers", given, said, f"{workers}, or null")
    cfg.cluster.workers = workers


def update_samples(cfg: DictConfig, algorithm: type[Stateful] | Stateful, workers: int) -> int:
    """Return the samples of one update: a batch of every worker if they step together, else one batch."""
    return cfg.run.batch_size * (workers if algorithm.steps_together else 1)
