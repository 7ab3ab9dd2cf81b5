"""The server's ends of its workers, over links whose other end is the test."""

import queue
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Fields
from runner.processes import connections
from runner.processes.connections import Connections
from runner.processes.message_buffer import BATCH, ROUND, STOP, MessageBuffer

PULL, PUSH = {"w": 2}, {"g": 2}


class Transfer:
    """A transfer that is done, or fails, when the test waits for it."""

    def __init__(self, error: RuntimeError | None) -> None:
        self.error = error
        self.waits: list[Any] = []

    def wait(self, timeout: Any = None) -> bool:
        self.waits.append(timeout)
        if self.error is not None:
            raise self.error
        return True


class Wire:
    """A link that notes what is sent, and receives what the test puts in."""

    def __init__(self) -> None:
        self.sent: list[Tensor] = []
        self.transfers: list[Transfer] = []
        self.up: queue.Queue[Tensor | RuntimeError] = queue.Queue()
        self.receiving = threading.Event()
        self.error: RuntimeError | None = None

    def send(self, buffer: Tensor) -> Transfer:
        self.sent.append(buffer.clone())
        self.transfers.append(Transfer(self.error))
        return self.transfers[-1]

    def receive(self, buffer: Tensor) -> None:
        self.receiving.set()
        item = self.up.get()
        if isinstance(item, RuntimeError):
            raise item
        buffer.copy_(item)


def made(workers: int = 2) -> tuple[Connections, list[Wire]]:
    wires = [Wire() for _ in range(workers)]
    links: Any = wires
    found = Connections(links, PULL, PUSH, list)
    found.start()
    return found, wires


def push(value: float) -> Tensor:
    buffer = MessageBuffer(PUSH)
    buffer.fill({"g": torch.full((2,), value)})
    return buffer.raw


def read(raw: Tensor, sizes: Fields) -> MessageBuffer:
    buffer = MessageBuffer(sizes)
    buffer.raw.copy_(raw)
    return buffer


def test_batch_is_answered_by_its_push():
    found, wires = made()
    found[1].send_batch((BATCH, 7, 3), {"w": torch.tensor([1.0, 2.0])}, 4.5)
    [raw] = wires[1].sent
    message = read(raw, PULL)
    assert message.header[:3].tolist() == [BATCH, 7, 3]
    assert message.tensors["w"].tolist() == [1.0, 2.0]
    assert found[1].sent_at == 4.5
    before = time.perf_counter()
    wires[1].up.put(push(5.0))
    arrival = found.next()
    assert arrival is not None
    assert (arrival.worker, arrival.fault) == (1, None)
    assert before <= arrival.time <= time.perf_counter()
    assert found[1].inbox.tensors["g"].tolist() == [5.0, 5.0]


def test_nothing_is_received_that_is_not_owed():
    found, wires = made()
    assert not wires[0].receiving.wait(0.2)
    found[0].send_batch((BATCH, 0, 0), {}, 0.0)
    assert wires[0].receiving.wait(10)
    wires[0].receiving.clear()
    wires[0].up.put(push(1.0))
    assert found.next() is not None
    assert not wires[0].receiving.wait(0.2), "the push was the last message that the worker owed"


def test_the_method_may_write_while_a_batch_travels():
    found, wires = made()
    w = torch.tensor([1.0, 2.0])
    found[0].send_batch((BATCH, 0, 0), {"w": w}, 0.0)
    w.zero_()
    assert found[0].outbox.tensors["w"].tolist() == [1.0, 2.0]
    assert wires[0].transfers[0].waits == [], "the server goes on meanwhile"
    found[0].send_batch((BATCH, 1, 1), {"w": w}, 1.0)
    assert len(wires[0].transfers[0].waits) == 1, "the buffer is written to when it has left"


def test_other_messages_are_announced_and_waited_for():
    found, wires = made()
    found[0].send_batch((BATCH, 0, 0), {}, 0.0)
    found[0].send((ROUND, 1, -1, 9), {"mean": 3}, {"mean": torch.arange(3.0)})
    assert read(wires[0].sent[1], PULL).header.tolist() == [ROUND, 1, -1, 9]
    assert read(wires[0].sent[2], {"mean": 3}).tensors["mean"].tolist() == [0.0, 1.0, 2.0]
    assert [len(transfer.waits) for transfer in wires[0].transfers] == [1, 1, 1]


@pytest.mark.parametrize("how", ["send", "send_batch", "receive"])
def test_a_broken_connection_is_told_in_its_turn(how: str):
    found, wires = made()
    error = RuntimeError("[/gloo/pair.cc:1] Connection closed by peer [127.0.0.1]:5. This is typically because of it")
    if how == "receive":
        found[1].send_batch((BATCH, 0, 0), {}, 0.0)
        wires[1].up.put(error)
    elif how == "send":
        wires[1].error = error
        found[1].send((ROUND, 0, 0, 0), {}, {})
    else:
        wires[1].send = lambda buffer: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        found[1].send_batch((BATCH, 0, 0), {}, 0.0)
    arrival = found.next()
    assert arrival is not None
    assert arrival.worker == 1
    assert arrival.fault == "its connection broke: Connection closed by peer [127.0.0.1]:5"


def test_waiting_ends_to_look_for_the_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "POLL_SECONDS", 0.05)
    found, _ = made()
    begin = time.monotonic()
    assert found.next() is None
    assert 0.04 < time.monotonic() - begin < 5


def test_stopping_gives_up_on_the_deaf(caplog: pytest.LogCaptureFixture):
    found, wires = made()
    found[0].send_stop()
    assert read(wires[0].sent[0], PULL).header[0] == STOP
    assert wires[0].transfers[0].waits == [connections.STOP_TIMEOUT]
    wires[1].error = RuntimeError("Timed out")
    with caplog.at_level("INFO", "dcrun"):
        found[1].send_stop()
    assert "worker 1 could not be told to stop: Timed out" in caplog.messages


def test_the_living_are_those_not_dropped():
    found, _ = made(3)
    found[1].alive = False
    assert found.living() == [0, 2]
    assert len(found) == 3


def test_who_watches_the_processes_says_what_happened(monkeypatch: pytest.MonkeyPatch):
    """A connection does not know which process on which machine it was; what is told of others is kept for later."""
    found, wires = made(3)
    told = iter([[], [(2, "worker 2 is stuck")], [(1, "worker 1 died")], []])
    monkeypatch.setattr(found, "_ask", lambda: next(told))
    found[1].expect(found[1].inbox)
    wires[1].up.put(RuntimeError("Connection closed by peer"))
    arrival = found.next()
    assert arrival is not None
    assert (arrival.worker, arrival.fault) == (1, "worker 1 died")
    assert found.find_lost() == [(2, "worker 2 is stuck"), (1, "worker 1 died")]
