"""Rank 0's watch over ranks that another launcher started, on any machines: who is dead, stuck or out of reach.

Every other rank keeps a connection to this monitor, and each side gives heartbeats on it. A process that dies closes
its connection; one that is stopped, and one whose machine cannot be reached, falls silent. What a fault costs:

- A worker of a parameter server: the batch that it held. The server is told, and goes on with the others.
- A rank of a collective or a pipeline, or any rank before all have joined: the run, back to its last checkpoint. All
  ranks are told and end; rank 0 has some time to save what it can.

`runner.processes.monitor_client` is the other end: it also notices when rank 0 itself is gone.
"""

from __future__ import annotations

import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runner.processes.child import DEAD_PEER
from runner.processes.heartbeat import exit_seconds_for, interval_for, max_silence_for
from runner.processes.json_socket import JsonSocket
from runner.processes.supervision import rank_name

FOLLOW_SECONDS = 1.0
"""Seconds after which a rank that ended because it lost a peer counts as the fault itself: no other was found."""
STOP_SECONDS = 25.0
"""Seconds that rank 0 has to end after SIGTERM: torchrun kills what is still there after 30."""


@dataclass
class Peer:
    """What is known of another rank.

    Attributes:
        heard: when it gave the last sign of life, by `time.monotonic`.
        step: number of its last step or message, 0 before the first, and when that was.
        ended: the exit code that it announced, and when.
        dead: whether it closed its connection without a word.
        lost: whether the run goes on without it.
    """

    connection: JsonSocket | None = None
    host: str = ""
    machine: str | None = None
    pid: int = 0
    heard: float = 0.0
    step: tuple[int, float] = (0, 0.0)
    ended: tuple[int, float] | None = None
    dead: bool = False
    lost: bool = False


class Monitor:
    """The monitor, in a thread of rank 0.

    Args:
        world: number of ranks.
        timeout: `cluster.timeout`, seconds.
        server: whether rank 0 is a parameter server, which can go on without a worker.
        machine: number of this machine among the launcher's, None if it does not say.
        welcome: what every rank is told when it comes; "welcome" is the name of this run.
        break_off: ends all transfers with the ranks that are given, or with all.
        on_fault: told at once what stops the run.
        on_overdue: called if this process has not ended some time after a fault or SIGTERM; does not return.

    Attributes:
        interval: seconds between two heartbeats.
        fault: what stops the run, None while nothing does; and the exit code because of it.
    """

    def __init__(
        self,
        world: int,
        timeout: float,
        *,
        server: bool,
        machine: str | None,
        welcome: dict[str, Any],
        break_off: Callable[..., None],
        on_fault: Callable[[str], None],
        on_overdue: Callable[[str, int], None],
    ) -> None:
        self.timeout = timeout
        self.interval = interval_for(timeout)
        self.max_silence = max_silence_for(timeout)
        # A second more than `cluster.timeout` leaves: rank 0 still writes its result.
        self.grace = exit_seconds_for(timeout, more=1.0)
        self.server = server
        self.machine = machine
        self.welcome = {**welcome, "machine": machine}
        self.break_off = break_off
        self.on_fault = on_fault
        self.on_overdue = on_overdue
        self.peers = {rank: Peer() for rank in range(1, world)}
        self.fault: tuple[str, int] | None = None
        self.joined = False
        self._step = (0, 0.0)
        # The monitor's thread puts, the main thread gets: a queue, so that neither waits for the other.
        self._lost: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._all_here, self._decided, self._over = threading.Event(), threading.Event(), threading.Event()
        self._deadline: float | None = None
        self._selector = selectors.DefaultSelector()
        # On all interfaces. The run's name keeps strangers out.
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self._listener = socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=max(8, world))
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._began = time.monotonic()
        # A daemon, so that this process can end while it watches.
        self._thread = threading.Thread(target=self._watch, daemon=True, name="monitor")
        if world == 1:
            self._all_here.set()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def wait_for_all(self) -> bool:
        """Wait until every rank has come; return whether all have."""
        while not self._all_here.wait(self.interval):
            if self.fault is not None:
                return False
        return True

    def find_lost(self) -> list[tuple[int, str]]:
        """Return the workers lost since the last call; see `FindLost`."""
        # The server asks for the first time when it has a link to each worker. Before that a run cannot do without any.
        self.joined = True
        found = []
        while not self._lost.empty():
            found.append(self._lost.get())
        return found

    def mark_step(self, number: int) -> None:
        """Note how far this rank has come."""
        self._step = (number, time.monotonic())

    def wait_fault(self) -> str | None:
        """Return what stops the run, as soon as that is found out; None if nothing is in the time it would take."""
        self._decided.wait(self.max_silence + FOLLOW_SECONDS)
        return None if self.fault is None else self.fault[0]

    def watch_signals(self) -> None:
        """Notice SIGTERM even while the main thread waits for a transfer: Python's handlers run only after that."""
        receiving, sending = socket.socketpair()
        receiving.setblocking(False)
        sending.setblocking(False)
        signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        # Kept with the selector: closed, the descriptor's number would soon be another file's.
        self._signals = (receiving, sending)
        self._selector.register(receiving, selectors.EVENT_READ, self._take_signal)

    def finish(self, code: int) -> None:
        """Tell the others that this rank ends, and how; end the watch."""
        # The thread first: from here on only this one uses the connections.
        self._over.set()
        self._thread.join()
        self._tell({"ended": code})
        if hasattr(self, "_signals"):
            signal.set_wakeup_fd(-1)
        self._selector.close()
        self._listener.close()

    # All below runs in the monitor's thread.

    def _watch(self) -> None:
        looked, beat_at = time.monotonic(), 0.0
        while not self._over.is_set():
            for key, _ in self._selector.select(self.interval / 2):
                # What was registered with the socket: `_accept`, `_hear` or `_take_signal`.
                key.data()
            now = time.monotonic()
            if now - looked > self.max_silence / 2:
                # This process itself was stopped (Ctrl-Z), so the silence of the others says nothing.
                for peer in self.peers.values():
                    peer.heard = now
            looked = now
            if now >= beat_at:
                self._tell({"step": self._step[0], "ago": now - self._step[1]})
                beat_at = now + self.interval
            # The first fault decides. What follows it, as ranks that end because of it, is no fault of theirs.
            if self.fault is None:
                self._judge(now)
            if self._deadline is not None and now > self._deadline:
                self.on_overdue(*(self.fault or ("stopped by SIGTERM", 128 + signal.SIGTERM)))
                self._deadline = None

    def _accept(self) -> None:
        with suppress(OSError):
            connection = JsonSocket(self._listener.accept()[0])
            self._selector.register(connection.socket, selectors.EVENT_READ, lambda: self._hear(connection))

    def _take_signal(self) -> None:
        if signal.SIGTERM in self._signals[0].recv(64) and self._deadline is None:
            self._deadline = time.monotonic() + STOP_SECONDS

    def _hear(self, connection: JsonSocket) -> None:
        try:
            for message in connection.receive():
                self._take(connection, message)
        except (KeyError, TypeError):
            # Not a rank of this run: somebody else's program has found the port.
            connection.broken = True
        if connection.broken:
            self._selector.unregister(connection.socket)
            connection.close()
            for peer in self.peers.values():
                if peer.connection is connection:
                    # Of an error on the way nothing follows yet: the rank tries to connect again.
                    peer.connection, peer.dead = None, connection.ended and peer.ended is None

    def _take(self, connection: JsonSocket, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._welcome(connection, message)
        elif "here" in message:
            self._attach(connection, message["here"], message["run"])
        for peer in self.peers.values():
            if peer.connection is connection:
                self._note(peer, message)

    def _welcome(self, connection: JsonSocket, message: dict[str, Any]) -> None:
        peer = self.peers.get(message["hello"])
        if peer is None or peer.lost or (peer.pid and peer.pid != message["pid"]):
            connection.send({"refused": f"the run goes on without rank {message['hello']}, which was lost before"})
            return
        peer.host, peer.machine, peer.pid = message["host"], message["machine"], message["pid"]
        # A rank that has just come counts as alive, however long it took to come.
        peer.heard = time.monotonic()
        connection.send(self.welcome)

    def _attach(self, connection: JsonSocket, rank: int, run: str) -> None:
        """Take a connection as a rank's own, if the rank means this run.

        A rank that hears nothing for a while tries a new one, since the old one may take long to notice that a wire is
        mended. It gives up one on which no welcome comes, and the end of such a one says nothing about the rank.
        """
        if run != self.welcome["welcome"]:
            raise KeyError(run)
        self.peers[rank].connection = connection
        if all(peer.connection is not None for peer in self.peers.values()):
            self._all_here.set()

    def _note(self, peer: Peer, message: dict[str, Any]) -> None:
        now = peer.heard = time.monotonic()
        if "step" in message:
            peer.step = (message["step"], now - message["ago"])
        if "ended" in message:
            peer.ended = (message["ended"], now)

    def _judge(self, now: float) -> None:
        """Look for ranks that are gone, and act on it."""
        found = {rank: what for rank, peer in self.peers.items() if not peer.lost and (what := self._what(peer, now))}
        for rank, peer in self.peers.items():
            # Ranks of one machine that is out of reach fall silent within a heartbeat or two: named together.
            if found and not peer.lost and self._silent(peer, now, self.max_silence - 2 * self.interval):
                found.setdefault(rank, _silence(peer, now))
        missing = [] if self._all_here.is_set() else [self._name(n) for n, peer in self.peers.items() if not peer.pid]
        if found and self.server and self.joined:
            for rank in found:
                self._drop(rank, self._told(rank, found[rank], now))
        elif found:
            codes = [peer.ended[0] for rank, peer in self.peers.items() if rank in found and peer.ended]
            # A rank that found wrong input in time has said so itself; the run ends as it did.
            code = codes[0] if codes and not self._step[0] and codes[0] in (1, 2) else DEAD_PEER
            self._stop("; ".join(self._told(rank, what, now) for rank, what in found.items()), code)
        elif missing and now - self._began > self.timeout:
            self._stop(f"{', '.join(missing)} did not come within {self.timeout:g} s (cluster.timeout)", DEAD_PEER)

    def _what(self, peer: Peer, now: float) -> str | None:
        """Return what is wrong with a rank, None if nothing is."""
        if peer.ended is not None:
            code, since = peer.ended
            if code == DEAD_PEER and now - since > FOLLOW_SECONDS:
                return "has lost another rank and ended"
            return f"ended with exit code {code}" if code not in (0, DEAD_PEER) else None
        if peer.dead:
            return "died"
        return _silence(peer, now) if self._silent(peer, now, self.max_silence) else None

    @staticmethod
    def _silent(peer: Peer, now: float, seconds: float) -> bool:
        return bool(peer.pid) and peer.ended is None and now - peer.heard > seconds

    def _told(self, rank: int, what: str, now: float) -> str:
        """Return who, what, and how far the rank had come."""
        peer = self.peers[rank]
        step, at = peer.step
        thing = "message" if self.server else "step"
        last = f"its last {thing} was number {step}, {now - at:.1f} s ago" if step else f"before its first {thing}"
        return f"{rank_name(rank, self.server)} (rank {rank}, host {peer.host}, pid {peer.pid}) {what}; {last}"

    def _name(self, rank: int) -> str:
        return f"{rank_name(rank, self.server)} (rank {rank})"

    def _drop(self, rank: int, text: str) -> None:
        """Go on without a worker."""
        peer = self.peers[rank]
        peer.lost = True
        # By the worker's number: a server counts workers, not ranks.
        self._lost.put((rank - 1, text))
        if not peer.dead and peer.ended is None:
            self._kill(peer)
        if peer.connection is not None:
            # Should it be there after all, it learns that it has been given up.
            peer.connection.send({"fault": text})
        # The server may be in the middle of sending to it, and would wait there for as long as a transfer may take.
        self.break_off(rank)

    def _kill(self, peer: Peer) -> None:
        """Kill a rank that is stuck, here or through a neighbour of its own: its launcher waits for it otherwise."""
        if peer.machine is None:
            return
        if peer.machine == self.machine:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(peer.pid, signal.SIGKILL)
            return
        for other in self.peers.values():
            if other.machine == peer.machine and not other.lost and other.connection is not None:
                # One neighbour is enough, and a process can be killed only from its own machine.
                other.connection.send({"kill": peer.pid})
                return

    def _stop(self, text: str, code: int) -> None:
        """End the run because of a rank that it cannot do without."""
        self.fault = (text, code)
        self._deadline = time.monotonic() + self.grace
        # Before the connections are broken: the others then know why, and do not name each other.
        self._tell({"fault": text})
        self.on_fault(text)
        self._decided.set()
        # The main thread may wait for one that never answers: broken connections wake it.
        self.break_off()

    def _tell(self, message: dict[str, Any]) -> None:
        for peer in self.peers.values():
            if peer.connection is not None and not peer.lost:
                peer.connection.send(message)


def _silence(peer: Peer, now: float) -> str:
    return f"is stuck or out of reach: no heartbeat for {now - peer.heard:.1f} s"
