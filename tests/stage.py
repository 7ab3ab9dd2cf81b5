"""The server of a run on processes, with workers that a test plays itself over links without a network."""

from __future__ import annotations

import math
import queue
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Layout
from runner.config.errors import InputError
from runner.gradients.evaluate import Score
from runner.loop.stop import Stop
from runner.loop.train_control import TrainControl
from runner.processes.links import MESSAGES, RECALLS
from runner.processes.message_buffer import BATCH, DROPPED, STOP, MessageBuffer
from runner.processes.server import ProcessServer
from runner.processes.worker import BATCHES, pull_fields
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
        self.recalls: queue.Queue[int] = queue.Queue()

    def send(self, buffer: Tensor, tag: int = MESSAGES) -> Sent:
        if tag == RECALLS:
            self.recalls.put(int(buffer))
        else:
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
        except (Stop, RuntimeError, InputError) as error:
            self.ended.append(error)
        else:
            self.ended.append(None)

    def pulled(self, worker: int) -> tuple[int, float]:
        """Return batch number and weight of the next message to a worker; batch -1 for the end."""
        buffer = MessageBuffer(pull_fields(self.layout.pull, 1))
        buffer.raw.copy_(self.wires[worker].down.get(timeout=WAIT_SECONDS))
        kind = int(buffer.header[0])
        assert kind in (BATCH, STOP)
        return (-1, 0.0) if kind == STOP else (int(buffer.tensors[BATCHES]), float(buffer.tensors["w"]))

    def push(self, worker: int, g: float, loss: float = 0.5, **more: float) -> float:
        """Push a gradient and return the weight after the update."""
        buffer = MessageBuffer(self.layout.push)
        buffer.fill({"g": torch.tensor([g])} | {name: torch.tensor([value]) for name, value in more.items()})
        buffer.numbers[:4] = torch.tensor([loss, 1.0, 1.0, 0.0], dtype=torch.float64)
        self.wires[worker].up.put(buffer.raw)
        self.updated.get(timeout=WAIT_SECONDS)
        return self.weights[-1]

    def recalled(self, worker: int) -> int:
        """Return which pull of a worker, by the pushes before it, was recalled."""
        return self.wires[worker].recalls.get(timeout=WAIT_SECONDS)

    def drop(self, worker: int, seconds: float = 0.0) -> None:
        """Say that a worker has dropped what it computed for so long."""
        buffer = MessageBuffer(self.layout.push)
        buffer.header[0] = DROPPED
        buffer.numbers[3] = seconds
        self.wires[worker].up.put(buffer.raw)

    def end(self) -> Exception | None:
        """Wait for the server to end; return what it ended with."""
        self.thread.join(WAIT_SECONDS)
        assert not self.thread.is_alive()
        return self.ended[0]


def lost(how: str, stage: Stage, worker: int) -> None:
    if how == "link":
        stage.wires[worker].up.put(RuntimeError("Connection closed by peer"))
    else:
        stage.found.append((worker, f"worker {worker} was killed"))
