"""`hydra.launcher.n_jobs=auto`: how many jobs of a sweep run at a time, and what each may take of the machine.

Independent jobs scale best, so as many run at a time as there are cores for their threads, and memory. Cores that are
left over, as there are fewer jobs than cores, go to the jobs' compute processes, which do not change any bit. Threads
do, so nobody's are touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig

from runner.config import resources
from runner.sweeps.asked_process import ask, without_seed

AUTO = "auto"
Jobs = int | Literal["auto"]
"""A value of `n_jobs`."""
_TAKEN = 0.9
"""The share of the free memory that jobs may take together; the bound is ours."""
_MEASURED = 3
"""How many jobs of unlike data, networks or batches are built to see what they take; the number is ours."""


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
class Needs:
    """What a job takes.

    Attributes:
        threads: of each of its processes that computes.
        processes: that compute at least, as ranks do or compute processes that the user has asked for.
        spreads: whether it takes as many compute processes as pay (`run.compute_processes=auto`).
        follows_machine: whether it has as many threads as there are cores only because nobody said otherwise.
        on_gpu: whether it runs on a GPU if there is one.
    """

    threads: int
    processes: int = 1
    spreads: bool = False
    follows_machine: bool = False
    on_gpu: bool = False


@dataclass(frozen=True)
class Placement:
    """How many jobs run at a time, and how.

    Attributes:
        jobs: at a time.
        told: what is told to the user.
    """

    jobs: int
    told: str


def place_here(configs: Sequence[DictConfig]) -> Placement:
    """Choose how many jobs run at a time on this machine; a process of its own tells what they take.

    Args:
        configs: of the jobs that are to run, with Hydra's part; at least one.
    """
    machine = Machine(resources.cores(), resources.gpus(), resources.free_memory())
    different = without_seed(configs)
    answer = ask(_answer, different)
    needs, memory = ([], None) if answer is None else answer
    # A job that cannot be built will say so itself.
    return place(len(configs), needs or [Needs(machine.cores)], machine, memory)


def place(jobs: int, needs: Sequence[Needs], machine: Machine, memory_each: int | None = None) -> Placement:
    """Choose how many jobs run at a time.

    Args:
        jobs: how many there are.
        needs: of those that are not alike.
        machine: what there is.
        memory_each: bytes that the largest job takes; None if unknown.
    """
    threads = max(own.threads for own in needs)
    room, bound = max(1, machine.cores // max(own.threads * own.processes for own in needs)), f"{machine.cores} cores"
    if machine.gpus and any(own.on_gpu for own in needs) and machine.gpus <= room:
        room, bound = machine.gpus, f"{machine.gpus} GPUs"
    if memory_each and machine.memory is not None and (fit := int(_TAKEN * machine.memory / memory_each)) < room:
        each, free = memory_each / 2**30, machine.memory / 2**30
        room, bound = max(1, fit), f"{machine.cores} cores and {free:.1f} GiB, of which a job takes {each:.1f},"
    at_a_time = min(room, jobs)
    processes = machine.cores // at_a_time // threads
    each = f"{threads} thread" + ("s" if threads > 1 else "")
    if processes > 1 and any(own.spreads for own in needs):
        each += f" a process, and up to {processes} compute processes"
    told = f"hydra.launcher.n_jobs=auto: {at_a_time} of {jobs} jobs at a time on {bound} ({each} each)"
    if at_a_time == 1 < jobs and any(own.follows_machine for own in needs):
        told += f"; run.threads=1 would let {min(jobs, machine.cores)} run at a time, with other bits"
    return Placement(at_a_time, told)


def may_spread(config: DictConfig) -> bool:
    """Return whether a job takes as many compute processes as pay."""
    chooses = config.run.compute_processes == AUTO and config.cluster.workers != 1 and not config.run.timing_only
    return chooses and config.cluster.kind in ("simulated", "replay")


def _answer(configs: list[Any]) -> tuple[list[Needs], int | None]:
    """Return what jobs need, and the bytes that the largest of them takes; None where that is not known."""
    # Here, not above: it imports torch.
    from runner.config.errors import InputError
    from runner.train.needs import memory_of, needs_of

    found, sizes = [], {}
    for cfg in configs:
        try:
            workers, threads = needs_of(cfg)
        except InputError:
            continue
        processes = workers if cfg.cluster.kind == "processes" else cfg.run.compute_processes
        follows = cfg.run.threads is None and threads > 1
        spreads, on_gpu = may_spread(cfg) and workers > 1, cfg.run.device != "cpu"
        # What `auto` takes is what the job's share of the cores allows.
        found.append(Needs(threads, 1 if processes == AUTO else processes, spreads, follows, on_gpu))
        # Of those that differ in less, the one with the most workers takes the most.
        alike = (str(cfg.dataset), str(cfg.model), cfg.run.batch_size)
        if not cfg.run.timing_only and not (on_gpu and resources.gpus()) and workers > sizes.get(alike, (0, None))[0]:
            sizes[alike] = (workers, cfg)
    measured = [cfg for _, cfg in list(sizes.values())[:_MEASURED]]
    return found, memory_of(measured) if measured else None
