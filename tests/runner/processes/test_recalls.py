"""Workers that are told to stop what they compute: over real links, and with a server or a worker that a test plays."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.asgd import GradientWorker
from algorithms.base import Batch, Layout, Message, Oracle
from runner.processes.links import RECALLS
from runner.processes.message_buffer import BATCH, DROPPED, STOP, MessageBuffer
from runner.processes.recalls import Recalled, RecallInbox, RecallOutbox
from runner.processes.worker import BATCHES, WorkerProcess, pull_fields
from runner.train import build
from tests.runner.processes.test_links import met
from tests.stage import Stage, lost
from tests.trial import compose


def seen(inbox: RecallInbox, seconds: float = 20.0) -> bool:
    """Whether a look raises before long."""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            inbox.look()
            time.sleep(0.001)
    except Recalled:
        return True
    return False


def test_only_the_present_pull_is_recalled(tmp_path: Path):
    """Several numbers wait for a worker that did not look; a late one of a pull before has no meaning."""
    server, worker = met(tmp_path)
    inbox, outbox = RecallInbox(worker), RecallOutbox(server)
    inbox.computing = 0
    inbox.look()
    for pull in (0, 4, 7):
        outbox.send(pull)
    inbox.computing = 7
    assert seen(inbox)
    inbox.computing = 9
    assert not seen(inbox, 0.1)
    outbox.send(9)
    assert seen(inbox)
    assert sorted(outbox._sending) == [0, 4, 7, 9]
    outbox.heard(7)
    assert sorted(outbox._sending) == [9]


STOPS = ("algorithm=ringmaster_stops", "algorithm.threshold=1")


def test_a_server_recalls_once_and_sends_the_batch_anew(tmp_path: Path):
    stage = Stage(tmp_path, *STOPS, start=1.0, workers=2)
    assert [stage.pulled(worker) for worker in (0, 1)] == [(0, 1.0), (1, 1.0)]
    assert stage.push(0, 1.0) == 0.5
    assert stage.recalled(1) == 0
    assert stage.pulled(0) == (2, 0.5)
    assert stage.push(0, 0.5) == 0.25
    assert stage.pulled(0) == (3, 0.25)
    assert stage.wires[1].recalls.empty(), "once"
    stage.drop(1)
    assert stage.pulled(1) == (1, 0.25)
    assert stage.push(1, 0.25) == 0.125
    # The other's second pull was after two pushes.
    assert stage.recalled(0) == 2
    # It had pushed already: ignored, and answered as any other.
    assert stage.push(0, 0.25) == 0.125
    assert stage.pulled(0) == (5, 0.125)
    assert stage.pulled(1) == (4, 0.125)
    lost("launcher", stage, 0)
    while not stage.server.workers_lost:
        assert stage.thread.is_alive()
    numbers = [4]
    stage.push(1, 0.0)
    while (number := stage.pulled(1)[0]) >= 0:
        numbers.append(number)
        stage.push(1, 0.0)
    assert numbers == [4, 5, 6, 7]
    assert stage.end() is None
    row = stage.notes.rows[-1]
    assert (row["stopped"], row["updates"], row["samples"], row["epoch"]) == (1, 7, 8, 1.0)
    shares = stage.server.timeline.report(stage.control.seconds)["workers"]
    assert [row["gradients"] for row in shares] == [3, 5]


def test_a_run_goes_on_with_new_workers_after_recalls(tmp_path: Path):
    stage = Stage(tmp_path, *STOPS, start=1.0, workers=2)
    for worker in (0, 1):
        stage.pulled(worker)
    stage.push(0, 1.0)
    assert stage.recalled(1) == 0
    assert stage.pulled(0)[0] == 2
    stage.stop_at = 2
    stage.push(0, 1.0)
    assert str(stage.end()) == "interrupted"
    resumed = Stage(tmp_path, *STOPS, start=1.0, workers=2, state=stage.saved[-1])
    assert [resumed.pulled(worker)[0] for worker in (0, 1)] == [1, 3]
    resumed.push(0, 0.0)
    assert resumed.recalled(1) == 2
    resumed.drop(1)
    assert resumed.pulled(1)[0] == 3
    lost("launcher", resumed, 1)
    numbers = list[int]()
    while (number := resumed.pulled(0)[0]) >= 0:
        numbers.append(number)
        resumed.push(0, 0.0)
    assert sorted(numbers) == [3, 4, 5, 6, 7]
    assert resumed.end() is None


class Recalling:
    """A link to a server that recalls the first `times` pulls, when the worker has looked `looks` times."""

    def __init__(self, layout: Layout, weights: torch.Tensor, *, times: int, looks: int) -> None:
        self.layout, self.weights, self.times, self.looks = layout, weights, times, looks
        self.inbox = MessageBuffer(layout.push)
        self.sent: list[tuple[int, Message, list[float]]] = []
        self.posted: torch.Tensor | None = None
        self.left = 0

    def receive(self, buffer: torch.Tensor) -> None:
        message = MessageBuffer(pull_fields(self.layout.pull, 1))
        pushes = sum(kind == BATCH for kind, _, _ in self.sent)
        header = (BATCH, 1, len(self.sent), 0) if pushes < 2 else (STOP, 0, 0, 0)
        self.left = self.looks
        message.header.copy_(torch.tensor(header))
        message.fill({"w": self.weights, BATCHES: torch.tensor([pushes])})
        buffer.copy_(message.raw)

    def send(self, buffer: torch.Tensor, tag: int = 0) -> Any:
        self.inbox.raw.copy_(buffer)
        tensors = {name: tensor.clone() for name, tensor in self.inbox.tensors.items()}
        self.sent.append((int(self.inbox.header[0]), tensors, self.inbox.numbers.tolist()))
        return self

    def post(self, buffer: torch.Tensor, tag: int) -> Any:
        assert tag == RECALLS
        self.posted = buffer
        return self

    def wait(self) -> None:
        """It has left, or come."""

    def looked(self) -> None:
        """Recall the present pull at the look that was asked for."""
        self.left -= 1
        if self.left == 0 and self.times:
            self.times -= 1
            assert self.posted is not None
            self.posted.fill_(len(self.sent))


class Counting(GradientWorker):
    """Counts its batches in what it keeps, before it computes."""

    def keep(self, state: Message) -> None:
        self.count = state["count"]

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        self.count += 1
        return super().work(oracle, pulled, batch)


@pytest.mark.parametrize("where", ["before a piece", "between pieces", "in a delay"])
def test_a_worker_leaves_what_it_computes(where: str):
    given = ("algorithm=asgd", "model=mlp", "dataset.limit_train=32", "run.batch_size=16", "cluster.workers=1")
    pieces = ("run.micro_batch=4",) if where == "between pieces" else ()
    slow = ("cluster.compute.seconds=0.05",) if where == "in a delay" else ("cluster.compute.seconds=0.001",)
    components, reference = (build.build_run(compose(*given, *pieces, *slow)) for _ in range(2))
    n = components.parameters
    layout = Layout(pull={"w": n}, push={"g": n}, state={"count": 1})
    weights = components.oracle.replica.weights.clone()
    looks = {"before a piece": 1, "between pieces": 3, "in a delay": 4}[where]
    link: Any = Recalling(layout, weights, times=2, looks=looks)
    half = Counting()
    process: Any = WorkerProcess(
        half,
        link,
        worker=0,
        layout=layout,
        oracle=components.oracle,
        batches=components.batches,
        clock=components.clock(),
        gradients=lambda updates: 1.0,
        stops=True,
    )
    look = process.recalls.look

    def watched() -> None:
        link.looked()
        look()

    process.recalls.look = components.oracle.interrupt = watched
    process.run()
    kinds = [kind for kind, _, _ in link.sent]
    assert kinds == [DROPPED, DROPPED, BATCH, BATCH]
    assert half.count.tolist() == [2.0], "what was dropped counts as nothing"
    assert process.kept.pushes == 2
    for number, (_, message, numbers) in enumerate(link.sent[2:]):
        batch = reference.batches.batch(number)
        assert torch.equal(message["g"], reference.oracle.gradient(weights, batch))
        assert numbers[:3] == reference.oracle.take_totals().tolist()
    assert all(0 < numbers[3] < 5 for _, _, numbers in link.sent)
    assert process.tasks == 4
