import pytest

from runner.config import resources
from runner.sweeps import placement
from runner.sweeps.placement import Machine, Needs, may_spread, place
from tests.trial import compose

EIGHT = Machine(cores=8, gpus=0, memory=None)


@pytest.mark.parametrize(
    ("jobs", "needs", "machine", "at_a_time", "processes"),
    [
        (20, Needs(1, spreads=True), EIGHT, 8, None),
        (20, Needs(3, spreads=True), EIGHT, 2, None),
        (20, Needs(16, spreads=True), EIGHT, 1, None),
        (2, Needs(1, spreads=True), EIGHT, 2, 4),
        (2, Needs(4, spreads=True), EIGHT, 2, None),
        (2, Needs(1), EIGHT, 2, None),
        (20, Needs(1, processes=4), EIGHT, 2, None),
        (20, Needs(1, on_gpu=True), Machine(8, gpus=2, memory=None), 2, None),
        (20, Needs(1), Machine(8, gpus=2, memory=None), 8, None),
    ],
)
def test_jobs_come_before_processes(jobs: int, needs: Needs, machine: Machine, at_a_time: int, processes: int | None):
    placed = place(jobs, [needs, Needs(1)], machine)
    assert placed.jobs == at_a_time
    assert (f"up to {processes} compute processes" in placed.told) == (processes is not None)
    assert ("compute processes" in placed.told) == (processes is not None)


def test_memory_bounds_the_number():
    machine = Machine(cores=8, gpus=0, memory=10 * 2**30)
    placed = place(20, [Needs(1)], machine, memory_each=4 * 2**30)
    assert placed.jobs == 2
    assert "2 of 20 jobs at a time on 8 cores and 10.0 GiB, of which a job takes 4.0, (1 thread each)" in placed.told
    assert place(20, [Needs(1)], machine, memory_each=40 * 2**30).jobs == 1
    assert place(20, [Needs(1)], machine, memory_each=2**20).jobs == 8


def test_threads_are_left_alone_and_spoken_of():
    """PyTorch takes a thread for each core where there is one worker, and other threads would be other bits."""
    assert place(3, [Needs(8, follows_machine=True), Needs(1)], EIGHT).told == (
        "hydra.launcher.n_jobs=auto: 1 of 3 jobs at a time on 8 cores (8 threads each)"
        "; run.threads=1 would let 3 run at a time, with other bits"
    )
    assert "run.threads" not in place(3, [Needs(8)], EIGHT).told


@pytest.mark.parametrize(
    ("overrides", "may"),
    [
        (("cluster.workers=4", "run.compute_processes=auto"), True),
        (("cluster.workers=1", "run.compute_processes=auto"), False),
        (("cluster.workers=4", "run.compute_processes=2"), False),
        (("cluster.workers=4", "run.compute_processes=auto", "cluster.kind=processes"), False),
        (("cluster.workers=4", "run.compute_processes=auto", "run.timing_only=true"), False),
    ],
)
def test_only_simulated_workers_are_spread(overrides: tuple[str, ...], may: bool):
    assert may_spread(compose("algorithm=asgd", *overrides)) == may


def test_a_job_is_asked_what_it_takes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "gpus", lambda: 0)
    small = ("model=mlp", "dataset.limit_train=200", "run.threads=null", "run.compute_processes=auto")
    one, four = compose("algorithm=sgd", *small), compose("algorithm=asgd", *small)
    ranks = compose("algorithm=asgd", "cluster.kind=processes", "cluster.workers=3", *small[:2])
    needs, memory = placement._answer([one, four, ranks])
    assert (needs[0].processes, needs[0].spreads) == (1, False)
    assert needs[1] == Needs(1, 1, spreads=True)
    assert needs[2] == Needs(1, 3)
    assert memory is not None
    assert 2**20 < memory < 2**30


def test_a_job_that_is_refused_says_so_itself():
    assert placement._answer([compose("algorithm=asgd", "run.batch_size=3000")])[1] is None
