"""One round of a barrier: the server broadcasts a message and gets an answer for each shard of the training set.

A worker answers for its own shard. If it is lost, before or while it answers, its shard goes to the next living worker
that has none to answer for: a fault costs the time of one more answer, and not a bit of the sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from algorithms.base import Message, Round
from runner.processes.connections import Connections
from runner.processes.message_buffer import ROUND, MessageBuffer
from runner.run_folder.timeline import Timeline


class BarrierRound:
    """Broadcast a message and gather the answers.

    Args:
        number: of the round, from 0.
        sizes: of its messages.
        message: what is broadcast.
        next_batch: number of the batch that comes after the barrier.
        connections: to the workers.
        wall: returns the run's second.
        timeline: what each worker did when.
    """

    def __init__(
        self,
        number: int,
        sizes: Round,
        message: Message,
        *,
        next_batch: int,
        connections: Connections,
        wall: Callable[[], float],
        timeline: Timeline,
    ) -> None:
        self.number = number
        self.sizes = sizes
        self.message = message
        self.next_batch = next_batch
        self.connections = connections
        self.wall = wall
        self.timeline = timeline
        # One for each worker, not for each shard: a worker answers for one shard at a time.
        self._inboxes = [MessageBuffer(sizes.answer) for _ in range(len(connections))]
        self._shard_of: dict[int, int] = {}
        self._orphans: list[int] = []

    def broadcast(self) -> None:
        """Send the message to all living workers, none of which answers."""
        for worker in self.connections.living():
            self._send(worker, -1)

    def answers(self, drop: Callable[[int, str], None], occupied: Callable[[], None]) -> dict[int, Message]:
        """Return the answers by shard.

        Args:
            drop: goes on without a worker, given what happened to it.
            occupied: acts the time for which a message occupies the server.

        Raises:
            PeerLost: all workers are gone.
        """

        def lose(worker: int, fault: str) -> None:
            # First, as it raises when nobody is left to whom the shard could go.
            drop(worker, fault)
            if worker in self._shard_of:
                self._orphans.append(self._shard_of.pop(worker))

        answers: dict[int, Message] = {}
        for worker in range(len(self.connections)):
            if self.connections[worker].alive:
                self._ask(worker, worker)
            else:
                self._orphans.append(worker)
        # By answers, not by living workers: the sum is over all shards, whoever is left.
        while len(answers) < len(self.connections):
            # Who is lost comes before who is free: a shard given up here is handed on in the same turn.
            for worker, fault in self.connections.find_lost():
                lose(worker, fault)
            for worker in self.connections.living():
                if self._orphans and worker not in self._shard_of:
                    self._ask(worker, self._orphans.pop(0))
            arrival = self.connections.next()
            if arrival is None:
                continue
            if arrival.fault is not None:
                lose(arrival.worker, arrival.fault)
            # A worker that was dropped as stuck may have answered just before it was killed: its shard is another's
            # now.
            elif self.connections[arrival.worker].alive:
                occupied()
                # Taken out of `_shard_of`, the worker is free to answer for a lost one's shard.
                answers[self._shard_of.pop(arrival.worker)] = self._take(arrival.worker, arrival.time)
        return answers

    def _ask(self, worker: int, shard: int) -> None:
        connection = self.connections[worker]
        self._shard_of[worker] = shard
        # Before it is sent: the timeline's round trip begins here and ends with the answer.
        connection.sent_at = self.wall()
        self._send(worker, shard)
        # After sending: until then the worker owes nothing, and the receiving thread must stay out of a transfer.
        connection.expect(self._inboxes[worker])

    def _send(self, worker: int, shard: int) -> None:
        header = (ROUND, self.number, shard, self.next_batch)
        self.connections[worker].send(header, self.sizes.broadcast, self.message)

    def _take(self, worker: int, arrived: float) -> Message:
        """Return a copy of a worker's answer: the worker may answer for another shard into the same buffer."""
        inbox = self._inboxes[worker]
        answer = {name: part.clone() for name, part in inbox.tensors.items()}
        now = self.wall()
        there = now - (time.perf_counter() - arrived)
        self.timeline.round_trip(worker, self.connections[worker].sent_at, there, now, float(inbox.numbers[3]))
        return answer
