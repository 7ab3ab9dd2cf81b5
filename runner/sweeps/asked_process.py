"""Asks what only torch, a method's class or the data can tell, in a process that is forked from the warm one.

The sweep's own process does without torch; what it asks, and what is answered, are plain values.
"""

from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from runner.config.schema import option_names, without_hydra
from runner.sweeps.forked_job import warm

T = TypeVar("T")


def ask(question: Callable[[list[DictConfig]], T], jobs: Sequence[DictConfig]) -> T | None:
    """Return what a function answers in a process of its own; None if that process ended without an answer.

    Args:
        question: of a module's top level; it gets what the jobs' runs see of their configurations.
        jobs: the configurations, with Hydra's part.
    """
    context = warm(jobs)
    ours, theirs = context.Pipe(duplex=False)
    plain = [OmegaConf.to_container(run_config(job), resolve=True) for job in jobs]
    process = context.Process(target=_answer, args=(question, plain, theirs), daemon=True)
    process.start()
    # Only the child's end is left, so its death ends the wait.
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        # It was killed, for want of memory perhaps, or failed: the jobs will say what is wrong.
        return None
    finally:
        process.kill()
        process.join()


def run_config(job: DictConfig, **changed: Any) -> DictConfig:
    """Return what a run sees of a job's configuration."""
    names = option_names(job, job.hydra.runtime.choices)
    cfg = OmegaConf.create(OmegaConf.to_container(without_hydra(job), resolve=True))
    return OmegaConf.merge(cfg, {"names": names}, changed)  # type: ignore[return-value]


def without_seed(jobs: Sequence[DictConfig]) -> list[DictConfig]:
    """Return the jobs of which no other differs in the seed alone."""
    different: dict[str, DictConfig] = {}
    for job in jobs:
        different.setdefault(OmegaConf.to_yaml(run_config(job, seed=0)), job)
    return list(different.values())


def _answer(question: Callable[[list[Any]], Any], plain: Sequence[Any], pipe: Connection) -> None:
    pipe.send(question([OmegaConf.create(content) for content in plain]))
