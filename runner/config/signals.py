"""The signals that ask a program of this project to stop, and what they do while no run is there to save itself.

`runner.loop.stop_signals` catches them during a run, which then saves; before and after that they are exceptions here.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers and closed terminals send; Ctrl-C (SIGINT) is treated apart, as a second one aborts."""

_PR_SET_PDEATHSIG = 1
"""The option of Linux' `prctl` that names the signal which a process gets when its parent ends."""
_noted: list[signal.Signals] | None = None
"""The signal that came first, if one has: the others repeat the same wish. None while `raising` is not in force."""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop while nothing could be saved; like Ctrl-C, it passes through `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def exit_code_of(error: KeyboardInterrupt) -> int:
    """Return the exit code of a program that was interrupted: 128 + the signal's number, as shells say it."""
    return error.code if isinstance(error, Stopped) else 128 + signal.SIGINT


def heeded() -> list[signal.Signals]:
    """Return those of `STOPPING` that are not to be left alone."""
    # `nohup` starts a program with SIGHUP ignored: it is meant to outlive its terminal.
    return [n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]


def ignore() -> None:
    """Ignore Ctrl-C and all of `STOPPING`: another process answers to them for this one."""
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, signal.SIG_IGN)


def note(number: int) -> bool:
    """Note that a signal came; return whether it is the first."""
    # One list, read and written in the main thread alone, where Python runs all handlers: no lock is needed.
    if _noted is None or _noted:
        return False
    _noted.append(signal.Signals(number))
    return True


def noted() -> signal.Signals | None:
    """Return the signal that came first; None if none has."""
    return _noted[0] if _noted else None


@contextmanager
def raising() -> Iterator[None]:
    """Turn the first signal of `STOPPING` into a `Stopped`, for a program that imports, builds, or has ended a run.

    Handlers are set in the main thread only, as Python wants it; in another thread this does nothing.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        # Once: a second signal must not break what the first one unwinds.
        if note(number):
            raise Stopped(number)

    global _noted
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Put back at the end: commands may be nested, as in tests.
    before, _noted = _noted, []
    # Asked here, while the handlers that were set before are still in force.
    handlers: dict[signal.Signals, Any] = dict.fromkeys(heeded(), stop)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # As Python itself sets it; a spawned rank starts without.
        handlers[signal.SIGINT] = signal.default_int_handler
    try:
        with handling(handlers):
            yield
    finally:
        _noted = before


@contextmanager
def handling(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], object]]) -> Iterator[None]:
    """Set handlers, and put back those before on leaving."""
    before: dict[signal.Signals, Any] = {number: signal.signal(number, new) for number, new in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None stands for a handler that C code installed: Python cannot put that back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def send_at_parents_end(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
