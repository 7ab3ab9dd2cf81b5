"""Connections that this process can break: a transfer with a peer that is silent then ends at once.

gloo has no call that ends a transfer, and its timeouts have to outlast a long evaluation on the other side. So the
sockets that a group opened are shut down, as the system does for a process that was killed.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
"""The folder of a process's open files, on Linux; elsewhere nothing is found and nothing broken."""

Opened = set[tuple[int, int]]
"""Sockets by descriptor and inode: a descriptor alone may be another file's by the time that it is used."""


class Breakable:
    """The sockets that were opened for each peer, or for all (None)."""

    def __init__(self) -> None:
        self._opened: dict[int | None, Opened] = {}
        self._spared: int | None = None

    def spare(self, port: int) -> None:
        """Never break connections to this port of this process, whenever they come."""
        self._spared = port

    @contextmanager
    def opening(self, peer: int | None = None) -> Iterator[None]:
        """Remember the sockets that the block opens to a peer, given by its rank, or to all peers."""
        # By comparison, since gloo does not say which sockets it opens.
        before = _sockets()
        yield
        self._opened.setdefault(peer, set()).update(_sockets() - before)

    def break_off(self, *peers: int) -> None:
        """End all transfers with these peers, or with all if none is given."""
        # A copy: the monitor's thread breaks off while the main thread may still be opening links.
        for peer, opened in list(self._opened.items()):
            # A group of all ranks (None) is broken with any of them: it cannot go on without one.
            if peers and peer is not None and peer not in peers:
                continue
            for descriptor, inode in opened:
                # gloo closes a socket by itself when its peer dies.
                if (descriptor, inode) in _sockets():
                    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as doubled:
                        if self._spared is not None and _port(doubled) == self._spared:
                            continue
                        # One that listens is nobody's connection, and gloo aborts the process if it is shut down.
                        if not doubled.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                            doubled.shutdown(socket.SHUT_RDWR)


def _port(connection: socket.socket) -> int | None:
    """Return the port of this end; None if it has none, or belongs to a local pair."""
    name = connection.getsockname()
    return name[1] if isinstance(name, tuple) else None


def _sockets() -> Opened:
    found: Opened = set()
    if not DESCRIPTORS.is_dir():
        return found
    for name in os.listdir(DESCRIPTORS):
        # The listing's own descriptor, and any that another thread closes meanwhile, is gone by now.
        with suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.add((int(name), status.st_ino))
    return found
