"""What worker halves keep from batch to batch, and how it gets into a checkpoint without being sent with each push.

A worker may be ahead of its server by the push that is on its way: the server saves what the half kept after the last
push that it has taken in, because gradients on their way are not part of a checkpoint. So the worker has the state
before its last push too, and is told how many pushes count.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence

import torch

from algorithms.base import Fields, Message, Worker, field_of
from runner.processes.connections import Arrival, Connections
from runner.processes.links import Link
from runner.processes.message_buffer import TELL, MessageBuffer


class KeptState:
    """A worker's side: what its half keeps now, and what it kept before the last push.

    Args:
        half: gets the tensors.
        fields: what they are.
        device: where the half computes.
    """

    def __init__(self, half: Worker, fields: Fields, device: torch.device) -> None:
        declared = {name: field_of(each) for name, each in fields.items()}
        self.now = {name: torch.zeros(size, dtype=dtype, device=device) for name, (size, dtype) in declared.items()}
        self.before = {name: tensor.clone() for name, tensor in self.now.items()}
        self.pushes = 0
        self._buffer = MessageBuffer(fields)
        self._nothing = MessageBuffer({})
        half.keep(self.now)

    def begin_push(self) -> None:
        """Note that the half is about to work on its next push."""
        for name, tensor in self.now.items():
            self.before[name].copy_(tensor)
        self.pushes += 1

    def drop_push(self) -> None:
        """Note that the half was stopped: it has what it had before."""
        for name, tensor in self.before.items():
            self.now[name].copy_(tensor)
        self.pushes -= 1

    def take(self, link: Link) -> None:
        """Receive what the half kept when the run was saved."""
        link.receive(self._buffer.raw)
        for name, tensor in self.now.items():
            tensor.copy_(self._buffer.tensors[name])

    def tell(self, link: Link, taken: int) -> None:
        """Send what the half kept after as many pushes as the server has taken in: all of them, or all but the last."""
        link.receive(self._nothing.raw)
        self._buffer.fill(self.now if taken == self.pushes else self.before)
        link.send(self._buffer.raw).wait()


def gather_states(
    connections: Connections, fields: Fields, taken: Sequence[int], computing: Container[int]
) -> list[Message]:
    """Return what each worker's half keeps, as it was after the pushes that the server has taken in.

    It takes as long as the batches that workers are at, whose pushes come first; they are handled afterwards. A worker
    that is lost meanwhile is dropped afterwards too, and what it kept is zeros.

    Args:
        connections: to the workers.
        fields: what halves keep; if nothing, nobody is asked.
        taken: by worker, pushes that were taken in since its process began.
        computing: workers that have a batch.
    """
    buffers = [MessageBuffer(fields) for _ in range(len(connections))]
    waiting = set(connections.living()) if fields else set[int]()
    asked, others = set[int](), list[Arrival]()

    def ask(worker: int) -> None:
        connection = connections[worker]
        connection.send((TELL, taken[worker], 0, 0), {}, {})
        # Its push is there: the receiving thread is free for another buffer.
        connection.expect(buffers[worker])
        asked.add(worker)

    for worker in sorted(waiting):
        if worker not in computing:
            ask(worker)
    while waiting:
        lost = [Arrival(worker, time.perf_counter(), fault) for worker, fault in connections.find_lost()]
        arrival = connections.next()
        for note in [*lost, *([] if arrival is None else [arrival])]:
            if note.fault is None and note.worker in waiting and note.worker in asked:
                waiting.remove(note.worker)
                continue
            others.append(note)
            if note.fault is None and note.worker in waiting:
                ask(note.worker)
            elif note.fault is not None:
                waiting.discard(note.worker)
                buffers[note.worker] = MessageBuffer(fields)
    connections.put_back(others)
    # Copies, as tensors of several types in one buffer cannot be saved.
    return [{name: tensor.clone() for name, tensor in buffer.tensors.items()} for buffer in buffers]
