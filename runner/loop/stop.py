"""How a run ends before its last batch."""

from __future__ import annotations

from runner.run_folder.summary_keys import DIVERGED, INTERRUPTED


class Stop(Exception):
    """Raised to end a run early.

    Args:
        status: "diverged", "interrupted", "pruned", or "completed" before the last batch.

    Attributes:
        code: the exit code, 0 unless a peer is at fault; a signal's code is the signal's.
    """

    code = 0

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Exploded(Stop):
    """The training loss is finite, and yet far above the one that the run began with.

    Args:
        message: both losses, and the key that says how far is too far.
    """

    def __init__(self, message: str) -> None:
        super().__init__(DIVERGED)
        self.message = message


class PeerLost(Stop):
    """A process that the run cannot do without is dead or stuck.

    Args:
        message: names it, and how far the run had come.
    """

    code = 3

    def __init__(self, message: str) -> None:
        # Not failed: the method has done nothing wrong, and the run can go on from its last checkpoint.
        super().__init__(INTERRUPTED)
        self.message = message
