"""A rank's connection to rank 0's monitor: it gives heartbeats, and notices when rank 0 is gone."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from runner.loop.stop import PeerLost
from runner.processes.child import DEAD_PEER
from runner.processes.heartbeat import exit_seconds_for, interval_for, max_silence_for
from runner.processes.json_socket import JsonSocket


class Place(NamedTuple):
    """Where rank 0's monitor is, and the name of its run."""

    host: str
    port: int
    name: str


class End(NamedTuple):
    """Why this rank has to end.

    Attributes:
        text: what happened, and to whom; empty if rank 0 has ended as it should.
        code: the exit code for this rank.
        first: whether this rank noticed it, so that rank 0 has not said it.
        dead: whether rank 0 is dead for certain, not only silent.
    """

    text: str
    code: int
    first: bool = False
    dead: bool = False


class MonitorClient:
    """The connection, kept in a thread.

    Args:
        rank: of this process.
        timeout: `cluster.timeout`, seconds.
        name: what rank 0 is called.
        machine: number of this machine among the launcher's, None if it does not say.
        locate: returns where the monitor is, None if rank 0 has not said so yet.
        on_end: ends this process; called in the thread.

    Attributes:
        interval: seconds between two heartbeats.
        welcome: what rank 0 told this rank when it came.
        end: why this rank has to end; None while nothing is wrong.
    """

    def __init__(
        self,
        rank: int,
        timeout: float,
        *,
        name: str,
        machine: str | None,
        locate: Callable[[], Place | None],
        on_end: Callable[[End], None],
    ) -> None:
        self.rank = rank
        self.timeout = timeout
        self.interval = interval_for(timeout)
        self.max_silence = max_silence_for(timeout)
        self.grace = exit_seconds_for(timeout, more=1.0)
        self.name = name
        self.locate = locate
        self.on_end = on_end
        self._untold = threading.Lock()
        self.hello = {"hello": rank, "host": socket.gethostname(), "machine": machine, "pid": os.getpid()}
        self.machine = machine
        self.welcome: dict[str, Any] = {}
        self.end: End | None = None
        self._place: Place | None = None
        self._step = (0, 0.0)
        self._rank_0 = (0, 0.0)
        self._decided, self._over = threading.Event(), threading.Event()
        self._connection: JsonSocket | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="monitor")

    def start(self) -> None:
        """Connect, and begin to watch.

        Raises:
            PeerLost: rank 0 did not come within `cluster.timeout`, or goes on without this rank.
        """
        # Asked again and again: rank 0 may come later, and the store may still hold the place of a run before this one.
        deadline = time.monotonic() + self.timeout
        while self._connection is None:
            self._place = self.locate()
            if self._place is not None:
                self._connection = self._connect(self._place)
            if time.monotonic() > deadline:
                raise PeerLost(f"{self.name} (rank 0) did not come within {self.timeout:g} s (cluster.timeout)")
            if self._connection is None:
                time.sleep(0.1)
        self._thread.start()

    def may_tell(self) -> bool:
        """Return whether why this rank ends is still to be said: true once, whichever thread asks first."""
        return self._untold.acquire(blocking=False)

    @property
    def at_home(self) -> bool:
        """Whether this rank is on rank 0's machine, as far as the launcher says."""
        return self.machine is not None and self.welcome.get("machine") == self.machine

    def mark_step(self, number: int) -> None:
        """Note how far this rank has come."""
        self._step = (number, time.monotonic())

    def wait_end(self) -> End | None:
        """Return why this rank has to end as soon as that is found out, None if it is not in `cluster.timeout`."""
        self._decided.wait(self.timeout)
        return self.end

    def finish(self, code: int) -> None:
        """Tell rank 0 that this rank ends, and how."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._connection is not None:
            self._connection.send({"ended": code})

    def _connect(self, place: Place) -> JsonSocket | None:
        """Connect and wait for the monitor's welcome; None if it is not there, or not this run's.

        Raises:
            PeerLost: the run goes on without this rank.
        """
        try:
            connection = JsonSocket(socket.create_connection((place.host, place.port), 2 * self.interval))
        except OSError:
            # An earlier run's place, or no way there for the moment.
            return None
        connection.send(self.hello)
        deadline = time.monotonic() + 2 * self.interval
        while not connection.broken and (left := deadline - time.monotonic()) > 0:
            select.select([connection.socket], [], [], left)
            for message in connection.receive():
                if "refused" in message:
                    raise PeerLost(message["refused"])
                # By the run's name: the port may belong to another program by now.
                if message.get("welcome") == place.name:
                    self.welcome = message
                    # Only now is this the rank's connection: rank 0 takes the end of any other for nothing.
                    connection.send({"here": self.rank, "run": place.name})
                    return connection
        connection.close()
        return None

    # All below runs in the thread.

    def _watch(self) -> None:
        looked = heard = time.monotonic()
        beat_at = 0.0
        while not self._over.is_set():
            connection = self._connection
            assert connection is not None
            select.select([] if connection.broken else [connection.socket], [], [], self.interval / 2)
            for message in connection.receive():
                self._take(message)
            if self.end is not None:
                # Rank 0 has said that it ends, and so its connection does.
                return
            now = time.monotonic()
            # If this process itself was stopped, what waits to be read tells more than the silence.
            heard = now if now - looked > self.max_silence / 2 else max(heard, connection.heard)
            looked = now
            if connection.ended:
                self._end(End(self._told("died"), DEAD_PEER, first=True, dead=True))
            elif now - heard > self.max_silence:
                self._end(
                    End(self._told(f"is stuck or out of reach: no heartbeat for {now - heard:.1f} s"), DEAD_PEER, True)
                )
            elif now - heard > 4 * self.interval or connection.broken:
                self._reconnect(connection)
            elif now >= beat_at:
                connection.send({"step": self._step[0], "ago": now - self._step[1]})
                beat_at = now + self.interval

    def _take(self, message: dict[str, Any]) -> None:
        if "step" in message:
            self._rank_0 = (message["step"], time.monotonic() - message["ago"])
        if "fault" in message:
            self._end(End(message["fault"], DEAD_PEER))
        if "kill" in message:
            # A neighbour that is stuck: its launcher would wait for it without end.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(message["kill"], signal.SIGKILL)
        if "ended" in message:
            # Stopped by a signal: that is rank 0's exit code alone.
            code = 0 if message["ended"] > 128 else message["ended"]
            text = f"{self._name_of_rank_0()} ended with exit code {code}, and says why" if code else ""
            self.end = End(text, code)
            self._decided.set()
            # A worker that waits for the server's next message ends by itself now; one that cannot is ended.
            if not self._over.wait(self.grace):
                self.on_end(self.end)

    def _reconnect(self, old: JsonSocket) -> None:
        """Try a new connection: after a long silence the system tries the old one only now and then."""
        assert self._place is not None
        with suppress(PeerLost):
            if (found := self._connect(self._place)) is not None:
                self._connection = found
                # Only when the new one is there: on the old one rank 0 may still be heard.
                old.close()

    def _end(self, end: End) -> None:
        self.end = end
        self._decided.set()
        self.on_end(end)
        self._over.set()

    def _told(self, what: str) -> str:
        step, at = self._rank_0
        last = (
            f"its last update was number {step}, {time.monotonic() - at:.1f} s ago"
            if step
            else "before its first update"
        )
        return f"{self._name_of_rank_0()} {what}; {last}"

    def _name_of_rank_0(self) -> str:
        return f"{self.name} (rank 0, host {self.welcome['host']}, pid {self.welcome['pid']})"
