"""SIGTERM and Ctrl-C as a request: a run finishes its update, saves, and exits with the signal's code."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """Catches SIGTERM and SIGINT while a run is inside; its loops poll it.

        with StopSignals() as stop:
            while not stop:
                ...
        return stop.exit_code or 0

    The first signal sets the flag. A Ctrl-C after it raises KeyboardInterrupt at once (nothing more is saved), one
    more ends the process as if nothing was caught. Repeated SIGTERMs are one: process groups deliver them twice. The
    handlers before are restored on leaving. Python allows handlers in the main thread only: in any other thread
    signals are not caught, and the flag stays down.

    Args:
        follows: another process answers to the terminal: SIGTERM alone is caught, and nothing is said.
    """

    def __init__(self, *, follows: bool = False) -> None:
        self.follows = follows
        self.signal: signal.Signals | None = None
        """The first signal that came, which decides the exit code."""
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int | None:
        """130 after Ctrl-C, 143 after SIGTERM (128 + the signal's number, as shells say it); None if no signal came."""
        return None if self.signal is None else 128 + self.signal.value

    def __enter__(self) -> Self:
        # In any other thread `signal.signal` raises.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM,) if self.follows else (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that C code installed: Python cannot put that back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            if number == signal.SIGINT:
                # Should what the exception unwinds hang, the next Ctrl-C ends the process.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        if self.follows:
            return
        # Not through print or logging: a handler may run in the middle of either.
        os.write(2, f"\n{self.signal.name}: saving and stopping; Ctrl-C now aborts at once\n".encode())
