from typing import Any

import pytest
from omegaconf import DictConfig

from runner.sweeps.placement import Machine, place
from tests.trial import compose

EIGHT = Machine(cores=8, gpus=0, memory=None)


def jobs(count: int, *overrides: str) -> list[DictConfig]:
    return [compose("algorithm=asgd", "cluster.workers=4", *overrides)] * count


@pytest.fixture(autouse=True)
def no_threads_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("count", "overrides", "machine", "at_a_time", "spread"),
    [
        (20, ("run.threads=1",), EIGHT, 8, False),
        (20, ("run.threads=3",), EIGHT, 2, False),
        (20, ("run.threads=16",), EIGHT, 1, False),
        (2, ("run.threads=1",), EIGHT, 2, True),
        (2, ("run.threads=4",), EIGHT, 2, False),
        (2, ("run.threads=1", "cluster.workers=1"), EIGHT, 2, False),
        (20, ("run.threads=1", "run.compute_processes=4"), EIGHT, 2, False),
        (20, ("run.threads=1", "cluster.kind=processes"), EIGHT, 2, False),
        (20, ("run.threads=1", "cluster.kind=processes", "cluster.workers=null"), EIGHT, 1, False),
        (20, ("run.threads=1", "run.device=auto"), Machine(8, gpus=2, memory=None), 2, True),
        (20, ("run.threads=1", "run.device=cpu"), Machine(8, gpus=2, memory=None), 8, False),
    ],
)
def test_jobs_come_before_processes(
    count: int, overrides: tuple[str, ...], machine: Machine, at_a_time: int, spread: bool
):
    placed = place(jobs(count, *overrides), machine)
    assert (placed.jobs, placed.spread) == (at_a_time, spread)
    assert placed.cores == machine.cores // at_a_time


def test_memory_bounds_the_number():
    machine = Machine(cores=8, gpus=0, memory=10 * 2**30)
    placed = place(jobs(20, "run.threads=1"), machine, memory_each=4 * 2**30)
    assert placed.jobs == 2
    assert "on 10.0 GiB, of which a job takes 4.0, (1 thread a process" in placed.told
    assert place(jobs(20, "run.threads=1"), machine, memory_each=40 * 2**30).jobs == 1
    assert place(jobs(20, "run.threads=1"), machine, memory_each=2**20).jobs == 8


def test_threads_are_left_alone_and_spoken_of(monkeypatch: pytest.MonkeyPatch):
    """PyTorch takes a thread for each core, and other threads would be other bits."""
    given: Any = jobs(3, "run.threads=null")
    placed = place(given, EIGHT)
    assert placed.jobs == 1
    assert placed.told == (
        "hydra.launcher.n_jobs=auto: 1 of 3 jobs at a time on 8 cores (8 threads each)"
        "; run.threads=1 would let 3 run at a time, with other bits"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    placed = place(given, EIGHT)
    assert (placed.jobs, placed.cores) == (3, 2)
    assert "run.threads" not in placed.told
