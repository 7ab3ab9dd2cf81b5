"""The server's half of a run on processes, with workers that this test plays itself over links without a network."""

import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.loop.stop import PeerLost, Stop
from runner.processes.message_buffer import MessageBuffer
from tests.stage import Stage, lost

# The order of pushes, and the weights after each, that tests of the simulated server work out by hand.
ORDER = [0, 0, 1, 0, 0, 1, 2, 0]
ASGD = [32.0, 16.0, -16.0, -24.0, -12.0, -4.0, -36.0, -30.0]
DC_ASGD_C = [1 / 2, 1 / 4, 1 / 8, 1 / 256, 1 / 512, -3905 / 2**16, -3905 / 2**17, -2114449343 / 2**36]
# The rate is halved after the fourth push, and λ doubled.
FALLING = ("schedule=multistep", "schedule.milestones=[0.5]", "schedule.gamma=0.5")
DC_ASGD_ABS = [1 / 2, 1 / 4, 1 / 8, 1 / 64, 3 / 2**8, -51 / 2**12, 1997 / 2**13, 1004473 / 2**22]


@pytest.mark.parametrize(
    ("overrides", "start", "expected"),
    [
        (("algorithm=asgd",), 64.0, ASGD),
        (("algorithm=dc_asgd_c", "algorithm.lambda0=1"), 1.0, DC_ASGD_C),
        (("algorithm=dc_asgd_c", "algorithm.lambda0=1", "algorithm.backup=worker"), 1.0, DC_ASGD_C),
        (("algorithm=dc_asgd_abs", "algorithm.lambda0=1", *FALLING), 1.0, DC_ASGD_ABS),
    ],
)
def test_three_workers_worked_out_by_hand(
    overrides: tuple[str, ...], start: float, expected: list[float], tmp_path: Path
):
    stage = Stage(tmp_path, *overrides, start=start, workers=3)
    held = {worker: stage.pulled(worker) for worker in range(3)}
    assert [held[worker] for worker in range(3)] == [(0, start), (1, start), (2, start)]
    weights, numbers = [], []
    for worker in ORDER:
        number, w = held[worker]
        numbers.append(number)
        more = {"w": w} if "w" in stage.layout.push else {}
        weights.append(stage.push(worker, w, **more))
        if len(weights) <= 5:
            held[worker] = stage.pulled(worker)
            assert held[worker][1] == pytest.approx(weights[-1], rel=1e-6)
    assert stage.end() is None
    assert weights == pytest.approx(expected, rel=1e-6)
    assert numbers == [0, 3, 1, 4, 6, 5, 2, 7]
    assert [stage.pulled(worker)[0] for worker in range(3)] == [-1, -1, -1], "idle workers are told that it is over"
    row = stage.notes.rows[-1]
    assert (row["staleness_mean"], row["staleness_max"], row["updates"]) == (13 / 8, 6, 8)
    assert (row["train_loss"], row["train_error"]) == (0.5, 100.0)
    assert stage.server.workers_lost == 0


@pytest.fixture(params=["link", "launcher"])
def how(request: pytest.FixtureRequest) -> str:
    """Who notices a lost worker."""
    return request.param


def test_a_lost_workers_batch_is_done_by_another(how: str, tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", start=1.0, workers=2)
    assert [stage.pulled(worker)[0] for worker in (0, 1)] == [0, 1]
    lost(how, stage, 1)
    while not stage.server.workers_lost:
        assert stage.thread.is_alive()
    numbers = [0]
    stage.push(0, 0.0)
    while (number := stage.pulled(0)[0]) >= 0:
        numbers.append(number)
        stage.push(0, 0.0)
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 7]
    assert stage.end() is None
    assert stage.server.workers_lost == 1
    assert stage.control.epoch == 1.0


def test_an_idle_worker_does_a_lost_batch(how: str, tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", "run.epochs=0.25", start=1.0, workers=2)
    assert [stage.pulled(worker)[0] for worker in (0, 1)] == [0, 1]
    stage.push(0, 1.0)
    with pytest.raises(queue.Empty):
        stage.wires[0].down.get(timeout=0.2)
    lost(how, stage, 1)
    assert stage.pulled(0) == (1, 0.5)
    stage.push(0, 0.0)
    assert stage.pulled(0)[0] == -1
    assert stage.end() is None
    assert stage.control.updates == 2


def test_the_last_lost_worker_ends_the_run(how: str, tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", start=1.0, workers=2)
    lost(how, stage, 1)
    lost(how, stage, 0)
    error = stage.end()
    assert isinstance(error, PeerLost)
    assert error.code == 3
    assert "all workers are lost" in error.message
    assert stage.server.workers_lost == 2


def test_late_push_of_lost_worker_is_dropped(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", "run.epochs=0.25", start=1.0, workers=2)
    for worker in (0, 1):
        stage.pulled(worker)
    lost("launcher", stage, 1)
    while not stage.server.workers_lost:
        assert stage.thread.is_alive()
    buffer = MessageBuffer(stage.layout.push)
    buffer.fill({"g": torch.tensor([1000.0])})
    stage.wires[1].up.put(buffer.raw)
    stage.push(0, 1.0)
    stage.pulled(0)
    stage.push(0, 0.0)
    assert stage.end() is None
    assert stage.weights == [0.5, 0.5]


def test_an_infinite_loss_ends_the_run(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", start=1.0, workers=1)
    stage.pulled(0)
    buffer = MessageBuffer(stage.layout.push)
    buffer.numbers[:3] = torch.tensor([float("nan"), 1.0, 1.0], dtype=torch.float64)
    for _ in range(8):
        stage.wires[0].up.put(buffer.raw)
    error = stage.end()
    assert isinstance(error, Stop)
    assert error.status == "diverged"


def test_a_resumed_run_does_unfinished_batches(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=dc_asgd_a", "algorithm.momentum=0.5", start=1.0, workers=2)
    assert [stage.pulled(worker)[0] for worker in (0, 1)] == [0, 1]
    stage.push(0, 1.0)
    assert stage.pulled(0)[0] == 2
    stage.stop_at = 2  # not "now": the server may still be looking up from the first push
    stage.push(1, 1.0)
    error = stage.end()
    assert isinstance(error, Stop)
    assert error.status == "interrupted"
    state = stage.saved[-1]
    # Batch 2 is with worker 0, batch 3 was handed to worker 1 in answer to its push.
    assert sorted(state["executor"]["leases"]["held"].values()) == [[2], [3]]

    resumed = Stage(tmp_path, "algorithm=dc_asgd_a", "algorithm.momentum=0.5", start=9.0, workers=2, state=state)
    first = [resumed.pulled(worker) for worker in (0, 1)]
    assert [number for number, _ in first] == [2, 3]
    assert [w for _, w in first] == pytest.approx([stage.weights[-1]] * 2)
    numbers = []
    for number in (2, 4, 5, 6, 7):
        numbers.append(number)
        resumed.push(0, 0.1)
        if number < 7:
            assert resumed.pulled(0)[0] == (4 if number == 2 else number + 1)
    resumed.push(1, 0.1)
    assert resumed.end() is None
    assert resumed.control.updates == 8
    assert resumed.notes.rows[-1]["samples"] == 8


def test_answers_are_added_up_by_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class LastAnswersFirst:
        """A round in which the last shard answers first, with numbers whose sum depends on the order."""

        def __init__(self, *given: Any, **more: Any) -> None:
            pass

        def answers(self, *given: Any) -> dict[int, dict[str, Tensor]]:
            return {shard: {"g": torch.tensor([g])} for shard, g in ((2, -1e8), (0, 1e8), (1, 1.0))}

        def broadcast(self) -> None:
            pass

    monkeypatch.setattr("runner.processes.server.BarrierRound", LastAnswersFirst)
    stage = Stage(tmp_path, "algorithm=asysvrg", start=1.0, workers=3)
    assert stage.pulled(0)[0] == 0
    # In single precision (1e8 + 1) - 1e8 is 0, and (-1e8 + 1e8) + 1 is 1.
    method: Any = stage.server.server
    assert float(method.full) == 0.0
    for worker in range(3):
        lost("link", stage, worker)
    assert isinstance(stage.end(), PeerLost)


def test_a_loss_told_twice_counts_once(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", start=1.0, workers=2)
    assert [stage.pulled(worker)[0] for worker in (0, 1)] == [0, 1]
    lost("launcher", stage, 1)
    lost("link", stage, 1)
    numbers = [0]
    stage.push(0, 0.0)
    while (number := stage.pulled(0)[0]) >= 0:
        numbers.append(number)
        stage.push(0, 0.0)
    assert stage.end() is None
    assert sorted(numbers) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert stage.server.workers_lost == 1


def test_training_loss_is_that_of_all_pushes(tmp_path: Path):
    stage = Stage(tmp_path, "algorithm=asgd", start=1.0, workers=2)
    for number in range(8):
        stage.pulled(number % 2)
        stage.push(number % 2, 0.0, loss=float(number))
    assert stage.end() is None
    assert stage.notes.rows[-1]["train_loss"] == 3.5
