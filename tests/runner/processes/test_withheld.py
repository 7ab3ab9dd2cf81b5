"""Replies that a server on processes withholds until others have caught up, with workers that this test plays."""

import queue
from pathlib import Path

import pytest

from algorithms.asgd import ASGD
from algorithms.base import Message, Step
from runner.loop.stop import Stop
from tests.stage import Stage, lost


class Never(ASGD):
    """A method that admits nobody after an update."""

    def admits(self, worker: int) -> bool:
        return bool(self.w == 1.0)

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        self.w += 1


@pytest.fixture(params=["link", "launcher"])
def how(request: pytest.FixtureRequest) -> str:
    """Who notices a lost worker."""
    return request.param


def test_a_reply_is_withheld_until_the_others_have_caught_up(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=ssp", "algorithm.slack=0", start=1.0, workers=2)
    assert [stage.pulled(worker) for worker in (0, 1)] == [(0, 1.0), (1, 1.0)]
    stage.push(1, 1.0)
    with pytest.raises(queue.Empty):
        stage.wires[1].down.get(timeout=0.2)
    stage.push(0, 0.5)
    assert [stage.pulled(worker) for worker in (0, 1)] == [(2, 0.25), (3, 0.25)]
    for _ in range(3):
        for worker in (0, 1):
            stage.push(worker, 0.0)
        for worker in (0, 1):
            stage.pulled(worker)
    assert stage.end() is None
    assert stage.control.updates == 8
    waiting = [row["waiting"] for row in stage.server.timeline.report(stage.control.seconds)["workers"]]
    assert min(waiting) > 0 and waiting[1] * stage.control.seconds > 0.2


def test_a_lost_worker_holds_up_nobody(how: str, tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=ssp", "algorithm.slack=0", start=1.0, workers=3)
    assert [stage.pulled(worker)[0] for worker in (0, 1, 2)] == [0, 1, 2]
    for worker in (0, 1):
        stage.push(worker, 0.0)
    lost(how, stage, 2)
    assert [stage.pulled(worker)[0] for worker in (0, 1)] == [2, 3], "first what the lost one held"
    # One that waits is lost in its turn, whose connection nobody listens to; the other goes on alone.
    stage.push(0, 0.0)
    lost("launcher", stage, 0)
    while stage.server.workers_lost < 2:
        assert stage.thread.is_alive()
    numbers = list[int]()
    stage.push(1, 0.0)
    while (number := stage.pulled(1)[0]) >= 0:
        numbers.append(number)
        stage.push(1, 0.0)
    assert numbers == [4, 5, 6, 7]
    assert stage.end() is None
    assert (stage.server.workers_lost, stage.control.epoch) == (2, 1.0)


def test_workers_that_wait_at_the_end_are_told_that_it_is_over(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=ssp", "algorithm.slack=0", start=1.0, workers=3)
    for _ in range(2):
        assert all(stage.pulled(worker)[0] >= 0 for worker in (0, 1, 2))
        for worker in (0, 1, 2):
            stage.push(worker, 0.0)
    # Two batches are left: worker 2 idles, so nobody will ever catch up with 0 and 1.
    for worker in (0, 1):
        assert stage.pulled(worker)[0] == 6 + worker
        stage.push(worker, 0.0)
    assert stage.end() is None
    assert [stage.pulled(worker)[0] for worker in (0, 1, 2)] == [-1, -1, -1]


def test_a_run_that_goes_on_waits_for_nobody_that_is_gone(tmp_path: Path):
    """The lost worker is there again, and begins where the slowest of the others is."""
    given = ("algorithm=ssp", "algorithm.slack=1")
    stage = Stage(tmp_path, *given, start=1.0, workers=2)
    assert [stage.pulled(worker)[0] for worker in (0, 1)] == [0, 1]
    lost("launcher", stage, 1)
    while not stage.server.workers_lost:
        assert stage.thread.is_alive()
    for number in (1, 2):
        stage.push(0, 0.0)
        assert stage.pulled(0)[0] == number
    stage.stop_at = 3
    stage.push(0, 0.0)
    assert isinstance(stage.end(), Stop)
    resumed = Stage(tmp_path, *given, start=1.0, workers=2, state=stage.saved[-1])
    assert [resumed.pulled(worker)[0] for worker in (0, 1)] == [3, 4]
    resumed.push(0, 0.0)
    assert resumed.pulled(0)[0] == 5
    resumed.push(0, 0.0)
    with pytest.raises(queue.Empty):
        resumed.wires[0].down.get(timeout=0.2)
    resumed.push(1, 0.0)
    assert [resumed.pulled(worker)[0] for worker in (0, 1)] == [6, 7]
    resumed.push(0, 0.0)
    resumed.push(1, 0.0)
    assert resumed.end() is None


def test_workers_that_wait_for_each_other_are_refused(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", f"algorithm._target_={__name__}.Never", start=1.0, workers=2)
    for worker in (0, 1):
        stage.pulled(worker)
    stage.push(0, 0.0)
    stage.push(1, 0.0)
    error = stage.end()
    assert str(error) == (
        "Never, admits: worker(s) 0, 1 wait for others, and none of these computes; allowed: True for one of them"
    )
