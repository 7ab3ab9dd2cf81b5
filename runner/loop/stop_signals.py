"""Ctrl-C and a scheduler's signals as a request: a run finishes its update, saves, and exits with the signal's code."""

import os
import signal
import threading
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Self

from runner.config import signals


class StopSignals:
    """Catches SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGINT while a run is inside; its loops poll it.

        with StopSignals() as stop:
            while not stop:
                ...
        return stop.exit_code or 0

    The first signal sets the flag. A Ctrl-C after it raises KeyboardInterrupt at once (nothing more is saved), one
    more ends the process as if nothing was caught. All other repetitions are one: schedulers send a warning before
    SIGTERM, and process groups deliver a signal twice. SIGHUP stays ignored where it was (`nohup`). The handlers before
    are restored on leaving. Python allows handlers in the main thread only: in any other thread signals are not caught,
    and the flag stays down.

    Args:
        follows: another process answers to the terminal: SIGINT is not caught, and nothing is said.
    """

    def __init__(self, *, follows: bool = False) -> None:
        self.follows = follows
        self.signal: signal.Signals | None = None
        """The first signal that came, which decides the exit code."""
        self._restored = ExitStack()

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number, as shells say it: 130 after Ctrl-C, 143 after SIGTERM; None if no signal came."""
        return None if self.signal is None else 128 + self.signal.value

    def __enter__(self) -> Self:
        # In any other thread `signal.signal` raises.
        if threading.current_thread() is threading.main_thread():
            # An exception that a signal raised before may have been swallowed, by a destructor or by C code.
            self.signal = signals.noted()
            caught = [*signals.heeded(), *([] if self.follows else [signal.SIGINT])]
            self._restored.enter_context(signals.handling(dict.fromkeys(caught, self._handle)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restored.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            if number == signal.SIGINT:
                # Should what the exception unwinds hang, the next Ctrl-C ends the process.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        # A repetition that comes when the run has saved and handed the signals back is then known for one.
        signals.note(number)
        if self.follows:
            return
        # Not through print or logging: a handler may run in the middle of either. After SIGHUP the terminal is gone.
        with suppress(OSError):
            os.write(2, f"\n{self.signal.name}: saving and stopping; Ctrl-C now aborts at once\n".encode())
