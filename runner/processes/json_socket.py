"""Messages of some bytes over a TCP connection that never makes its owner wait: a line of JSON each."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

LONGEST = 1 << 20
"""Bytes that wait for a peer which takes none, and bytes of one line, at most."""


class JsonSocket:
    """One end of a connection.

    Args:
        connected: the socket.

    Attributes:
        heard: when the last message came, by `time.monotonic`.
        ended: whether the other end is closed: its process has ended, or closed it.
        broken: whether the connection is of no use any more, for whatever reason.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        # Each message is small and wanted at once.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self.heard = time.monotonic()
        self.ended = False
        self.broken = False
        self._out = b""
        self._in = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, or as much of it as the other end takes now; the rest goes with the next."""
        # A peer that is stopped takes nothing. The oldest messages are kept: a new one says no more than they do.
        if len(self._out) < LONGEST:
            self._out += json.dumps(message).encode() + b"\n"
        try:
            while self._out and not self.broken:
                self._out = self._out[self.socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have come."""
        try:
            while not self.broken:
                chunk = self.socket.recv(1 << 16)
                # Nothing at all is how TCP says that the other end has closed; a line without end
                # is not from this project.
                if not chunk or len(self._in) > LONGEST:
                    self.ended = self.broken = True
                self._in += chunk
        except BlockingIOError:
            pass
        except OSError as error:
            self._break(error)
        # The last piece is the beginning of a line that is still to come, or empty.
        *lines, self._in = self._in.split(b"\n")
        if lines:
            self.heard = time.monotonic()
        try:
            return [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError):
            # Somebody else's program has connected to this port.
            self.ended = self.broken = True
            return []

    def close(self) -> None:
        """Close this end."""
        self.broken = True
        self.socket.close()

    def _break(self, error: OSError) -> None:
        # A reset comes from a machine whose process is gone. Other errors tell of the way there (no route), which may
        # be found again.
        self.broken = True
        self.ended = self.ended or isinstance(error, ConnectionResetError | BrokenPipeError)
