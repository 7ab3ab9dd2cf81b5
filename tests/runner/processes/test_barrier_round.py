"""A round of a barrier, its workers in the hands of the test."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Round
from runner.processes import connections
from runner.processes.barrier_round import BarrierRound
from runner.processes.connections import Connections
from runner.processes.message_buffer import ROUND, MessageBuffer
from runner.run_folder.timeline import Timeline
from tests.runner.processes.test_connections import PULL, PUSH, Wire, read

SIZES = Round({"w": 1}, {"sum": 1})


class Stage:
    """A round that runs in a thread of its own."""

    def __init__(self, workers: int, gone: tuple[int, ...] = ()) -> None:
        self.wires = [Wire() for _ in range(workers)]
        self.found: list[tuple[int, str]] = []
        links: Any = self.wires
        self.connections = Connections(links, PULL, PUSH, self._find_lost)
        self.connections.start()
        for worker in gone:
            self.connections[worker].alive = False
        self.dropped: list[tuple[int, str]] = []
        self.occupied = 0
        self.round = BarrierRound(
            2,
            SIZES,
            {"w": torch.tensor([3.0])},
            next_batch=11,
            connections=self.connections,
            wall=lambda: 1.0,
            timeline=Timeline(workers),
        )
        self.answers: dict[int, Any] = {}
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.answers = self.round.answers(self._drop, self._occupy)

    def _find_lost(self) -> list[tuple[int, str]]:
        found, self.found = self.found, []
        return found

    def _drop(self, worker: int, fault: str) -> None:
        self.connections[worker].alive = False
        self.dropped.append((worker, fault))

    def _occupy(self) -> None:
        self.occupied += 1

    def asked(self, worker: int, nth: int = 0) -> int:
        """Wait until a worker has got its n-th question; return the shard that it is asked for."""
        for _ in range(1000):
            if len(self.wires[worker].sent) >= 2 * (nth + 1):
                break
            self.thread.join(0.01)
        header = read(self.wires[worker].sent[2 * nth], PULL).header.tolist()
        assert read(self.wires[worker].sent[2 * nth + 1], SIZES.broadcast).tensors["w"].tolist() == [3.0]
        assert (header[:2], header[3]) == ([ROUND, 2], 11)
        return header[2]

    def answer(self, worker: int, value: float) -> None:
        self.wires[worker].up.put(said(value))

    def end(self) -> dict[int, float]:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return {shard: float(message["sum"]) for shard, message in self.answers.items()}


def said(value: float) -> Tensor:
    buffer = MessageBuffer(SIZES.answer)
    buffer.fill({"sum": torch.tensor([value])})
    return buffer.raw


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "POLL_SECONDS", 0.02)


def test_each_worker_answers_for_its_shard():
    stage = Stage(3)
    stage.thread.start()
    assert [stage.asked(worker) for worker in range(3)] == [0, 1, 2]
    for worker in (2, 0, 1):
        stage.answer(worker, 10.0 + worker)
    assert stage.end() == {0: 10.0, 1: 11.0, 2: 12.0}
    assert stage.occupied == 3
    assert not stage.dropped


def test_the_shard_of_one_gone_before_is_answered():
    stage = Stage(3, gone=(1,))
    stage.thread.start()
    assert (stage.asked(0), stage.asked(2)) == (0, 2)
    stage.answer(2, 12.0)
    assert stage.asked(2, 1) == 1
    stage.answer(2, 11.0)
    stage.answer(0, 10.0)
    assert stage.end() == {0: 10.0, 1: 11.0, 2: 12.0}
    assert not stage.wires[1].sent


@pytest.mark.parametrize("how", ["found", "broken"])
def test_the_shard_of_one_lost_meanwhile_is_answered(how: str):
    stage = Stage(2)
    stage.thread.start()
    assert (stage.asked(0), stage.asked(1)) == (0, 1)
    if how == "found":
        stage.found.append((1, "was killed"))
    else:
        stage.wires[1].up.put(RuntimeError("Connection closed by peer"))
    stage.answer(0, 10.0)
    assert stage.asked(0, 1) == 1
    stage.answer(0, 11.0)
    assert stage.end() == {0: 10.0, 1: 11.0}
    assert [worker for worker, _ in stage.dropped] == [1]


def test_what_a_dropped_worker_answers_is_not_taken():
    stage = Stage(2)
    stage.thread.start()
    assert stage.asked(1) == 1
    stage.found.append((1, "is stuck"))
    while not stage.dropped:
        assert stage.thread.is_alive()
    stage.answer(1, 99.0)
    stage.answer(0, 10.0)
    assert stage.asked(0, 1) == 1
    stage.answer(0, 11.0)
    assert stage.end() == {0: 10.0, 1: 11.0}


def test_a_broadcast_without_answers_goes_to_the_living():
    stage = Stage(3, gone=(0,))
    stage.round.broadcast()
    assert [len(wire.sent) for wire in stage.wires] == [0, 2, 2]
    assert stage.asked(1) == -1
    assert not stage.wires[1].receiving.wait(0.1)
