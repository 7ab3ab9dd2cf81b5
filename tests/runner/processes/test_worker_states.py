"""What halves keep, asked for over links whose other end is the test."""

from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.base import Field, Message, Worker
from runner.processes.message_buffer import TELL, MessageBuffer
from runner.processes.worker_states import KeptState, gather_states
from tests.runner.processes.test_connections import made, push

KEPT = {"v": 2}


class Half(Worker):
    """Keeps what it is given."""

    def keep(self, state: Message) -> None:
        self.v = state["v"]

    def work(self, *given: Any) -> Message:
        self.v += 1
        return {}


class Line:
    """A link that receives what the test put in, and notes what is sent."""

    def __init__(self) -> None:
        self.down: list[MessageBuffer] = []
        self.up: list[torch.Tensor] = []

    def receive(self, buffer: torch.Tensor) -> None:
        buffer.copy_(self.down.pop(0).raw)

    def send(self, buffer: torch.Tensor) -> Any:
        self.up.append(buffer.clone())

        class Sent:
            def wait(self) -> None:
                """It has left."""

        return Sent()


def message(value: float) -> MessageBuffer:
    buffer = MessageBuffer(KEPT)
    buffer.fill({"v": torch.full((2,), value)})
    return buffer


def value_of(raw: torch.Tensor) -> list[float]:
    buffer = MessageBuffer(KEPT)
    buffer.raw.copy_(raw)
    return buffer.tensors["v"].tolist()


def test_worker_tells_of_the_pushes_that_count():
    half, line = Half(), Line()
    link: Any = line
    kept = KeptState(half, KEPT, torch.device("cpu"))
    line.down = [message(5.0)]
    kept.take(link)
    for _ in range(3):
        kept.begin_push()
        half.work()
    line.down = [MessageBuffer({}), MessageBuffer({})]
    for taken in (3, 2):
        kept.tell(link, taken)
    assert [value_of(raw) for raw in line.up] == [[8.0, 8.0], [7.0, 7.0]]


def test_server_waits_for_pushes_on_their_way():
    """Worker 0 is idle, 1 computes, 2 dies at it, and 3 is dead already: a push and a loss are handled afterwards."""
    connections, wires = made(workers=4)
    connections[3].alive = False
    for worker in (1, 2):
        connections[worker].send_batch((0, worker, 0), {"w": torch.zeros(2)}, now=0.0)
    wires[0].up.put(message(10.0).raw)
    wires[1].up.put(push(3.0))
    wires[1].up.put(message(11.0).raw)
    wires[2].up.put(RuntimeError("Connection closed by peer"))
    states = gather_states(connections, KEPT, taken=[4, 5, 6, 7], computing={1, 2})
    assert [state["v"].tolist() for state in states] == [[10.0, 10.0], [11.0, 11.0], [0.0, 0.0], [0.0, 0.0]]
    asked = [[raw[:32].view(torch.int64).tolist() for raw in wire.sent] for wire in wires]
    assert asked[0][0][:2] == [TELL, 4]
    assert asked[1][1][:2] == [TELL, 5]
    later = {}
    for _ in range(2):
        arrival = connections.next()
        assert arrival is not None
        later[arrival.worker] = arrival.fault
    assert later[1] is None
    assert connections[1].inbox.tensors["g"].tolist() == [3.0, 3.0]
    assert "Connection closed" in str(later[2])


def test_states_of_several_types_can_be_saved(tmp_path: Path):
    connections, wires = made(workers=1)
    fields = {"v": 2, "t": Field(1, torch.int64)}
    buffer = MessageBuffer(fields)
    buffer.fill({"v": torch.full((2,), 3.0), "t": torch.tensor([7])})
    wires[0].up.put(buffer.raw)
    states = gather_states(connections, fields, taken=[1], computing=())
    torch.save(states, tmp_path / "states.pt")
    assert {name: tensor.tolist() for name, tensor in states[0].items()} == {"v": [3.0, 3.0], "t": [7]}


def test_nobody_is_asked_about_nothing():
    connections, wires = made()
    assert gather_states(connections, {}, taken=[0, 0], computing={0, 1}) == [{}, {}]
    assert wires[0].sent == []


@pytest.mark.parametrize("told", [True, False])
def test_a_worker_that_is_found_dead_is_not_waited_for(told: bool):
    connections, wires = made()
    wires[0].up.put(message(10.0).raw)
    connections[1].send_batch((0, 1, 0), {"w": torch.zeros(2)}, now=0.0)
    if told:
        connections._ask = lambda: [(1, "worker 1 was killed")]
    else:
        wires[1].up.put(RuntimeError("Connection closed by peer"))
    states = gather_states(connections, KEPT, taken=[0, 0], computing={1})
    assert [state["v"].tolist() for state in states] == [[10.0, 10.0], [0.0, 0.0]]
    arrival = connections.next()
    assert arrival is not None
    assert (arrival.worker, arrival.fault is None) == (1, False)
