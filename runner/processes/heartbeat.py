"""Heartbeats: how whoever started the ranks learns that one of them is stuck, and how far each has come.

A dead process is seen by its exit code and a broken connection; one that is stopped or hangs shows neither. So each
rank has a thread that notes the time every half second. If the process is stopped, or another thread never gives the
interpreter's lock back, the notes end, and the rank counts as stuck.
"""

from __future__ import annotations

import time
from multiprocessing.context import BaseContext
from typing import Any

MAX_INTERVAL = 0.5
"""Seconds between two heartbeats, at most."""
SILENT_FRACTION = 0.8
"""Fraction of `cluster.timeout` for which a rank may give no heartbeat; the rest is for ending the others."""
EXIT_SECONDS = 5.0
"""Seconds that ranks get to end by themselves, at most."""


def interval_for(timeout: float) -> float:
    """Return the seconds between two heartbeats for a `cluster.timeout`."""
    # With a short timeout more often: sixteen heartbeats fit into the 80 % of it after which a rank counts as stuck.
    return min(MAX_INTERVAL, timeout / 20)


def max_silence_for(timeout: float) -> float:
    """Return the seconds without a heartbeat after which a rank counts as stuck."""
    return SILENT_FRACTION * timeout


def exit_seconds_for(timeout: float, more: float = 0.0) -> float:
    """Return the seconds that ranks get to end by themselves.

    Together with the silence before it, this stays within `cluster.timeout` and `more` seconds.
    """
    return min(EXIT_SECONDS, (1 - SILENT_FRACTION) * timeout + more)


class Heartbeats:
    """The heartbeats and progress of all ranks, in memory that they share with their supervisor.

    No lock guards the memory: each number is written by one process (those of a rank by the rank itself, `reset` aside)
    and is read and written whole. A lock would be worse than none, since a rank that is killed or stopped while it
    holds one would block everyone else.

    Args:
        context: of multiprocessing.
        world: number of ranks.
        timeout: `cluster.timeout`, seconds.

    Attributes:
        interval: seconds between two heartbeats.
    """

    def __init__(self, context: BaseContext, world: int, timeout: float) -> None:
        self.interval = interval_for(timeout)
        self._beats: Any = context.Array("d", world, lock=False)
        self._steps: Any = context.Array("q", world, lock=False)
        self._step_times: Any = context.Array("d", world, lock=False)
        self._finished: Any = context.Array("b", world, lock=False)
        self._joined: Any = context.Value("b", 0, lock=False)

    def beat(self, rank: int) -> None:
        """Note that a rank lives."""
        # The monotonic clock is the same for all processes, and does not run while the machine sleeps.
        self._beats[rank] = time.monotonic()

    def mark_step(self, rank: int, number: int) -> None:
        """Note how far a rank has come."""
        # Two writes without a lock: whoever reads between them sees a time of the step before, in a message only.
        self._steps[rank] = number
        self._step_times[rank] = time.monotonic()

    def mark_joined(self) -> None:
        """Note that all ranks have found each other."""
        self._joined.value = 1

    def mark_finished(self, rank: int) -> None:
        """Note that a rank ends as it should."""
        self._finished[rank] = 1

    def reset(self) -> None:
        """Treat every rank that has started as if it had given a heartbeat just now."""
        for rank, beat in enumerate(self._beats):
            # Before its first heartbeat a rank still imports, however long that takes: 0 means that it is not stuck.
            if beat:
                self.beat(rank)

    def silence(self, rank: int) -> float:
        """Return the seconds since a rank's last heartbeat; 0 before its first one and once it has finished."""
        beat = self._beats[rank]
        return time.monotonic() - beat if beat and not self._finished[rank] else 0.0

    def last_step(self, rank: int) -> tuple[int, float]:
        """Return the number of a rank's last step or message, 0 if there was none, and how many seconds ago it was."""
        return self._steps[rank], time.monotonic() - self._step_times[rank]

    def finished(self, rank: int) -> bool:
        """Return whether a rank has noted that it ends as it should."""
        return bool(self._finished[rank])

    @property
    def joined(self) -> bool:
        """Whether all ranks have found each other: only then can a run go on without one."""
        return bool(self._joined.value)
