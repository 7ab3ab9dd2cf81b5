"""The server's end of each connection: buffers, a receiving thread for each worker, one queue for all messages.

Who owns what. The main thread sends, handles messages and owns all state. A receiving thread does one thing: wait for
the message that its worker owes and put a note of it into the queue. Nothing is locked. A worker's buffer is the
receiving thread's from `expect` until the note of its arrival is taken out of the queue, and the main thread's for the
rest of the time; semaphore and queue hand it over.
"""

from __future__ import annotations

import datetime
import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from torch.distributed import Work

from algorithms.base import Fields, Message
from runner.processes.child import FindLost
from runner.processes.links import Link, reason
from runner.processes.message_buffer import STOP, MessageBuffer
from runner.processes.recalls import RecallOutbox

log = logging.getLogger("dcrun")

POLL_SECONDS = 0.5
"""Seconds between two looks at who was lost while no message comes."""
EXPLAIN_SECONDS = 0.3
"""How long whoever watches the processes may take to say what happened to one whose connection broke."""
STOP_TIMEOUT = datetime.timedelta(seconds=5)
"""How long a worker is given to take the message that the run is over."""


class Arrival(NamedTuple):
    """A note that a worker's message is in its buffer, or that none will ever be.

    Attributes:
        worker: whose it is.
        time: of `time.perf_counter`.
        fault: what happened to the connection, None if the message arrived.
    """

    worker: int
    time: float
    fault: str | None = None


class Connection:
    """The server's end of the connection to one worker.

    Args:
        worker: its number, from 0.
        link: bytes to and from it.
        pull: layout of what it is sent with a batch.
        push: layout of what it answers.
        arrivals: where notes go.

    Attributes:
        outbox: the message with a batch, sent while the server goes on; its header announces other messages too.
        inbox: the last push.
        sent_at: second of the run at which it was sent what it computes with.
        pushed_at: second of the run at which its last push was taken in.
        alive: whether it is still part of the run.
        recalls: how it is told to stop what it computes.
        shards_due: numbers of the shards of the training set that it has to be told of before its next batch.
    """

    def __init__(self, worker: int, link: Link, pull: Fields, push: Fields, arrivals: queue.Queue[Arrival]) -> None:
        self.worker = worker
        self.link = link
        self.outbox = MessageBuffer(pull)
        self.inbox = MessageBuffer(push)
        self.sent_at = 0.0
        self.pushed_at = 0.0
        self.alive = True
        self.shards_due: list[int] = []
        self.recalls = RecallOutbox(link)
        self._arrivals = arrivals
        self._sending: Work | None = None
        self._receiving = self.inbox
        # Counts the messages that the worker owes: the main thread gives permits, the receiving thread takes them.
        self._owed = threading.Semaphore(0)

    def start(self) -> None:
        """Start the receiving thread."""
        # The thread is a daemon: it may wait for a worker that never answers, and the run must end without it.
        threading.Thread(target=self._receive, daemon=True, name=f"worker {self.worker}").start()

    def _receive(self) -> None:
        while True:
            # The thread receives only while the worker owes a message: a thread that is in a transfer when Python ends
            # can abort the process.
            self._owed.acquire()
            try:
                self.link.receive(self._receiving.raw)
            except RuntimeError as error:
                # The thread ends with its connection: no message can follow.
                self._break(error)
                return
            self._arrivals.put(Arrival(self.worker, time.perf_counter()))

    def expect(self, buffer: MessageBuffer) -> None:
        """Have the receiving thread wait for the worker's next message; until then the buffer is the thread's."""
        # In this order: the thread looks for the buffer once it has the permit.
        self._receiving = buffer
        self._owed.release()

    def send_batch(self, header: Sequence[int], message: Message, now: float) -> None:
        """Start sending what the worker computes on a batch with, at second `now` of the run; its push is expected."""
        self._fill_outbox(header)
        # Copied into the buffer, so that the method's own tensors may change while the message is on its way.
        self.outbox.fill(message)
        self.sent_at = now
        try:
            self._sending = self.link.send(self.outbox.raw)
        except RuntimeError as error:
            self._break(error)
        # Also if sending failed: the thread may then report the same broken link, and the server drops a worker once.
        self.expect(self.inbox)

    def send(self, header: Sequence[int], sizes: Fields, message: Message) -> None:
        """Send a message of another layout than a batch's, announced by a header, and wait until it has left."""
        self._fill_outbox(header)
        # Made for each such message: they are rare, and of other sizes than a batch's.
        body = MessageBuffer(sizes)
        body.fill(message)
        try:
            self.link.send(self.outbox.raw).wait()
            self.link.send(body.raw).wait()
        except RuntimeError as error:
            self._break(error)

    def recall(self, pull: int) -> None:
        """Tell the worker to drop what it computes with this pull, and to say so instead of its push."""
        try:
            self.recalls.send(pull)
        except RuntimeError as error:
            self._break(error)

    def send_stop(self) -> None:
        """Tell a worker that waits for work that there is none; give up on one that does not listen."""
        try:
            if self._sending is not None:
                self._sending.wait(STOP_TIMEOUT)
            # Into the buffer of a pull: every request has that size.
            self.outbox.header[0] = STOP
            self.link.send(self.outbox.raw).wait(STOP_TIMEOUT)
        except RuntimeError as error:
            log.info("worker %d could not be told to stop: %s", self.worker, reason(error))

    def _fill_outbox(self, header: Sequence[int]) -> None:
        if self._sending is not None:
            # The buffer must not change before the last message has left; a transfer can be waited for only once.
            self._sending.wait()
            self._sending = None
        for place, value in enumerate(header):
            self.outbox.header[place] = value

    def _break(self, error: RuntimeError) -> None:
        """Queue a note that the connection broke: the worker is dropped after the messages that came before."""
        self._arrivals.put(Arrival(self.worker, time.perf_counter(), f"its connection broke: {reason(error)}"))


class Connections:
    """All workers' connections.

    Args:
        links: a link to each worker.
        pull: layout of what a worker is sent with a batch.
        push: layout of what it answers.
        find_lost: see `FindLost`.
    """

    def __init__(self, links: list[Link], pull: Fields, push: Fields, find_lost: FindLost) -> None:
        self._arrivals: queue.Queue[Arrival] = queue.Queue()
        self.all = [Connection(worker, link, pull, push, self._arrivals) for worker, link in enumerate(links)]
        self._ask = find_lost
        self._told: list[tuple[int, str]] = []
        self._put_back: list[Arrival] = []

    def __getitem__(self, worker: int) -> Connection:
        return self.all[worker]

    def __len__(self) -> int:
        return len(self.all)

    def start(self) -> None:
        """Start to receive."""
        for connection in self.all:
            connection.start()

    def living(self) -> list[int]:
        """Return the workers that are still part of the run."""
        return [connection.worker for connection in self.all if connection.alive]

    def find_lost(self) -> list[tuple[int, str]]:
        """Return the workers that were found dead or stuck since the last call, and what happened to each."""
        told, self._told = [*self._told, *self._ask()], []
        return told

    def put_back(self, arrivals: list[Arrival]) -> None:
        """Have `next` return these first, in their order: whoever took them waited for something else."""
        self._put_back += arrivals

    def next(self) -> Arrival | None:
        """Return the next message, or None if none comes for a while, so that the caller can look for lost workers."""
        if self._put_back:
            return self._put_back.pop(0)
        try:
            # With a timeout: a stuck worker sends nothing that could wake the server.
            arrival = self._arrivals.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        if arrival.fault is None or not self.all[arrival.worker].alive:
            return arrival
        return arrival._replace(fault=self._explained(arrival.worker, arrival.fault))

    def _explained(self, worker: int, fault: str) -> str:
        """Return what happened to a worker whose connection broke, from whoever watches it, else what is known here.

        A connection tells of a dead process at once, but not which process on which machine it was.
        """
        deadline = time.monotonic() + EXPLAIN_SECONDS
        while True:
            self._told += self._ask()
            for found, what in self._told:
                if found == worker:
                    return what
            if time.monotonic() > deadline:
                return fault
            time.sleep(0.01)
