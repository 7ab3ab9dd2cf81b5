"""How far a job of a sweep has come between its evaluations: a few bytes that the job writes and the sweep reads.

Both hold a file without a name. Nobody waits for the other, and nothing is left behind.
"""

import os
import struct
import tempfile
import time
from typing import NamedTuple

VARIABLE = "DCRUN_LIVE_STATUS"
"""Environment variable by which a job knows its descriptor of the file."""
_FORM = struct.Struct("<ddd")
_held: int | None = None


class Status(NamedTuple):
    """How far a job has come.

    Attributes:
        epoch: effective passes.
        samples: gradient evaluations.
        when: the time at which it wrote this, as of files.
    """

    epoch: float
    samples: float
    when: float


class LiveStatus:
    """The sweep's end.

    Attributes:
        end: descriptor, to be passed on to the job.
    """

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self.end = os.dup(file.fileno())

    def read(self) -> Status | None:
        """Return what the job has written last; None before it has."""
        content = os.pread(self.end, _FORM.size, 0)
        return Status(*_FORM.unpack(content)) if len(content) == _FORM.size else None

    def close(self) -> None:
        """Forget the file; the job may write on."""
        os.close(self.end)


def hold() -> None:
    """In a job, take the file of its sweep; in any other process this does nothing."""
    global _held
    # Not for the processes that the job starts: it alone knows how far it is.
    text = os.environ.pop(VARIABLE, None)
    if text is not None:
        _held = int(text)
        os.set_inheritable(_held, False)


def is_held() -> bool:
    """Return whether a sweep wants to know how far this process has come."""
    return _held is not None


def write(epoch: float, samples: float) -> None:
    """Tell the sweep how far this job has come, if there is one."""
    global _held
    if _held is None:
        return
    try:
        os.pwrite(_held, _FORM.pack(epoch, samples, time.time()), 0)
    except OSError:
        # A full disk takes nothing; the sweep then goes by the evaluations.
        _held = None
