"""`hydra.launcher.n_jobs=auto`: how many jobs of a sweep run at a time, and what each may take of the machine.

Independent jobs scale best, so as many run at a time as there are cores for their threads, and memory. Cores that are
left over, as there are fewer jobs than cores, go to the jobs' compute processes, which do not change any bit. Threads
do, so nobody's are touched.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig

AUTO = "auto"
Jobs = int | Literal["auto"]
"""A value of `n_jobs`."""
_TAKEN = 0.9
"""The share of the free memory that jobs may take together; the bound is ours."""


@dataclass(frozen=True)
class Machine:
    """What a sweep may use.

    Attributes:
        cores: processor cores.
        gpus: GPUs.
        memory: free bytes; None if unknown.
    """

    cores: int
    gpus: int
    memory: int | None


@dataclass(frozen=True)
class Placement:
    """How many jobs run at a time, and how.

    Attributes:
        jobs: at a time.
        cores: for each of them.
        spread: whether jobs that simulate several workers are to take compute processes (`run.compute_processes=auto`).
        told: what is told to the user.
    """

    jobs: int
    cores: int
    spread: bool
    told: str


def place(configs: Sequence[DictConfig], machine: Machine, memory_each: int | None = None) -> Placement:
    """Choose how many jobs run at a time.

    Args:
        configs: of the jobs that are to run; at least one.
        machine: what there is.
        memory_each: bytes that the largest job takes; None if unknown.
    """
    threads = max(_threads(config, machine.cores) for config in configs)
    needed = max(_threads(config, machine.cores) * _processes(config, machine.cores) for config in configs)
    room, bound = max(1, machine.cores // needed), f"{machine.cores} cores"
    if machine.gpus and any(config.run.device != "cpu" for config in configs) and machine.gpus <= room:
        room, bound = machine.gpus, f"{machine.gpus} GPUs"
    if memory_each and machine.memory is not None and (fit := int(_TAKEN * machine.memory / memory_each)) < room:
        room, bound = max(1, fit), f"{machine.memory / 2**30:.1f} GiB, of which a job takes {memory_each / 2**30:.1f},"
    jobs = min(room, len(configs))
    cores = machine.cores // jobs
    spread = cores // threads > 1 and any(may_spread(config) for config in configs)
    each = f"{threads} thread" + ("s" if threads > 1 else "")
    if spread:
        each += f" a process, and up to {cores // threads} compute processes"
    told = f"{jobs} of {len(configs)} jobs at a time on {bound} ({each} each)"
    if jobs == 1 and len(configs) > 1 and any(_follows_machine(config) for config in configs):
        told += f"; run.threads=1 would let {min(len(configs), machine.cores)} run at a time, with other bits"
    return Placement(jobs, cores, spread, f"hydra.launcher.n_jobs=auto: {told}")


def may_spread(config: DictConfig) -> bool:
    """Return whether a job may take compute processes that the user has not spoken of."""
    one = config.run.compute_processes == 1 and config.cluster.workers != 1
    return one and config.cluster.kind in ("simulated", "replay") and config.run.device in ("cpu", "auto")


def _threads(config: DictConfig, cores: int) -> int:
    """Return how many threads a process of a job has."""
    if config.run.threads is not None:
        return int(config.run.threads)
    # As OpenMP reads it: the first number of a list is that of the outermost level.
    return int((os.environ.get("OMP_NUM_THREADS") or str(cores)).split(",")[0])


def _follows_machine(config: DictConfig) -> bool:
    """Return whether a job has as many threads as the machine has cores only because nobody said otherwise."""
    return config.run.threads is None and config.cluster.kind != "processes" and "OMP_NUM_THREADS" not in os.environ


def _processes(config: DictConfig, cores: int) -> int:
    """Return how many processes of a job compute; all that there is room for if the algorithm says how many."""
    if config.cluster.kind == "processes":
        return int(config.cluster.workers or cores)
    asked = config.run.compute_processes
    # What `auto` takes is what the job's share of the cores allows.
    return 1 if asked == AUTO else int(asked)
