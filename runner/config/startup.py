"""What the time between a command and its first step of training goes into.

`runner.cli.main` says when the command began; whoever begins another part of the way calls `enter`, a handful of times
a run. One command at a time: a process that runs several, as tests do, begins anew with each.
"""

import time
from typing import NamedTuple

IMPORTS, CONFIGURATION, BUILD, DATA, LOGGER = "imports", "configuration", "network and method", "data", "logger"
LAUNCH = "command and processes"
"""Phases of a start."""
LONGEST = 600.0
"""Seconds that the imports before a command can take; a process that seems older had another clock, or other work."""


class Phase(NamedTuple):
    """A stretch of the start.

    Attributes:
        name: one of the phases.
        begin: by `time.monotonic`, which is the same for all processes of a machine.
        end: likewise.
    """

    name: str
    begin: float
    end: float


class Startup:
    """The start of one command.

    Args:
        whole_process: whether the process was started for this command, so that its own start is the command's.
        began: when the command began, where that was in another process; until this one enters a phase it is launched.
    """

    def __init__(self, *, whole_process: bool = False, began: float | None = None) -> None:
        self._whole_process = whole_process
        first = IMPORTS if whole_process else CONFIGURATION
        self._marks = [(first, time.monotonic()) if began is None else (LAUNCH, began)]
        self._ended: float | None = None

    @property
    def began(self) -> float:
        """Return when the command began, by `time.monotonic`."""
        return self._marks[0][1]

    @property
    def over(self) -> bool:
        """Return whether the first step has begun."""
        return self._ended is not None

    def enter(self, name: str) -> None:
        """Begin a phase, and end the one before it."""
        if self._marks[-1][0] != name:
            self._marks.append((name, time.monotonic()))

    def end(self) -> float:
        """End the start; return how many seconds it took."""
        if self._whole_process:
            # Only now: what tells a process' age is imported for this.
            self._marks[0] = (self._marks[0][0], self._marks[0][1] - _age(self._marks[0][1]))
            self._whole_process = False
        if self._ended is None:
            self._ended = time.monotonic()
        return self._ended - self.began

    def phases(self) -> list[Phase]:
        """Return the stretches of a start that is over, in their order; a phase may come more than once."""
        assert self._ended is not None
        ends = [begin for _, begin in self._marks[1:]] + [self._ended]
        return [Phase(name, begin, end) for (name, begin), end in zip(self._marks, ends, strict=True)]


def _age(moment: float) -> float:
    """Return how old this process was at a moment of `time.monotonic`; 0 if that cannot be right."""
    # Here, since a command that trains nothing, as --help, would wait for it in vain.
    import psutil

    age = time.time() - psutil.Process().create_time() - (time.monotonic() - moment)
    return age if 0.0 < age < LONGEST else 0.0


_current: Startup | None = None


def begin(*, whole_process: bool = False, began: float | None = None) -> None:
    """Begin a command; the arguments are those of `Startup`."""
    # For the whole process: the way from the command to the run leads through Hydra, which hands nothing on.
    global _current
    _current = Startup(whole_process=whole_process, began=began)


def current() -> Startup:
    """Return the start of the command that this process is at; a run that no command began begins here."""
    if _current is None or _current.over:
        begin()
    assert _current is not None
    return _current
