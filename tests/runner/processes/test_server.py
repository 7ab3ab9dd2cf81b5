"""The server's half of a run on processes, with workers that this test plays itself over links without a network."""

import math
import queue
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Layout
from runner.gradients.evaluate import Score
from runner.loop.stop import PeerLost, Stop
from runner.loop.train_control import TrainControl
from runner.processes.message_buffer import BATCH, STOP, MessageBuffer
from runner.processes.server import ProcessServer
from runner.run_folder.timeline import Timeline
from runner.train import build
from tests.trial import Notes, QuadraticOracle, compose

QUADRATIC = (
    "cluster=processes",
    "model=linear",
    "dataset.limit_train=8",
    "run.batch_size=1",
    "run.epochs=1",
    "schedule.lr=0.5",
    "algorithm.weight_decay=0",
)
WAIT_SECONDS = 20.0


class Sent:
    """A transfer that is done."""

    def wait(self, timeout: Any = None) -> bool:
        return True


class Wire:
    """A link whose other end is this test."""

    def __init__(self) -> None:
        self.down: queue.Queue[Tensor] = queue.Queue()
        self.up: queue.Queue[Tensor | RuntimeError] = queue.Queue()

    def send(self, buffer: Tensor) -> Sent:
        self.down.put(buffer.clone())
        return Sent()

    def receive(self, buffer: Tensor) -> None:
        item = self.up.get()
        if isinstance(item, RuntimeError):
            raise item
        buffer.copy_(item)


class Stage:
    """A server in a thread of its own, and its workers in the hands of the test."""

    def __init__(self, folder: Path, *overrides: str, start: float, workers: int, state: Any = None) -> None:
        components = build.build_run(compose(*QUADRATIC, f"cluster.workers={workers}", *overrides))
        self.oracle = QuadraticOracle(start)
        # Single precision, like the messages.
        self.oracle.replica.weights = self.oracle.replica.weights.float()
        method: Any = components.method
        self.layout: Layout = method.layout(1)
        self.wires = [Wire() for _ in range(workers)]
        self.found: list[tuple[int, str]] = []
        self.notes = Notes()
        self.saved: list[dict[str, Any]] = []
        self.stop_at = math.inf
        self.batches = components.batches
        links: Any = self.wires
        replica: Any = self.oracle.replica
        evaluator: Any = lambda weights, statistics: Score(0.0, 0.0)  # noqa: E731
        self.control = TrainControl(
            samples=8,
            epochs=components.cfg.run.epochs,
            eval_every=100,
            checkpoint_every=100,
            schedule=components.schedule,
            evaluator=evaluator,
            logger=self.notes,
            folder=folder,
            save=lambda updates, saved: self.saved.append(saved),
            stopping=lambda: self.control.updates >= self.stop_at,
        )
        self.server = ProcessServer(
            method,
            links=links,
            replica=replica,
            batches=components.batches,
            control=self.control,
            timeline=Timeline(workers),
            find_lost=self._find_lost,
            clock=components.clock(),
        )
        if state is not None:
            self.control.load_state_dict(state["course"])
            self.server.load_state_dict(state["executor"])
        self.weights: list[float] = []
        self.updated: queue.Queue[None] = queue.Queue()
        self.notes.on_update = self._note
        self.ended: list[Exception | None] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _note(self) -> None:
        self.weights.append(float(self.server.weights()))
        self.updated.put(None)

    def _find_lost(self) -> list[tuple[int, str]]:
        found, self.found = self.found, []
        return found

    def _run(self) -> None:
        try:
            self.server.run()
        except (Stop, RuntimeError) as error:
            self.ended.append(error)
        else:
            self.ended.append(None)

    def pulled(self, worker: int) -> tuple[int, float]:
        """Return batch number and weight of the next message to a worker; batch -1 for the end."""
        buffer = MessageBuffer(self.layout.pull)
        buffer.raw.copy_(self.wires[worker].down.get(timeout=WAIT_SECONDS))
        kind = int(buffer.header[0])
        assert kind in (BATCH, STOP)
        return (-1, 0.0) if kind == STOP else (int(buffer.header[1]), float(buffer.tensors["w"]))

    def push(self, worker: int, g: float, loss: float = 0.5, **more: float) -> float:
        """Push a gradient and return the weight after the update."""
        buffer = MessageBuffer(self.layout.push)
        buffer.fill({"g": torch.tensor([g])} | {name: torch.tensor([value]) for name, value in more.items()})
        buffer.numbers[:4] = torch.tensor([loss, 1.0, 1.0, 0.0], dtype=torch.float64)
        self.wires[worker].up.put(buffer.raw)
        self.updated.get(timeout=WAIT_SECONDS)
        return self.weights[-1]

    def end(self) -> Exception | None:
        """Wait for the server to end; return what it ended with."""
        self.thread.join(WAIT_SECONDS)
        assert not self.thread.is_alive()
        return self.ended[0]


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


def lost(how: str, stage: Stage, worker: int) -> None:
    if how == "link":
        stage.wires[worker].up.put(RuntimeError("Connection closed by peer"))
    else:
        stage.found.append((worker, f"worker {worker} was killed"))


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
    assert sorted(state["executor"]["leases"]["held"].values()) == [2, 3]

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
