"""Keeps a program going whose reader has gone: `dcrun … | head -1`, a closed terminal, a full disk behind `> file`.

What a run prints is also in its folder, so a line that cannot be printed must never cost the run.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Lasting:
    """A text stream whose writes do not fail: once one has, all that follows goes nowhere.

    Args:
        stream: where to write, as `sys.stdout`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, and return its length."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write lines."""
        with self._dropping():
            self._stream.writelines(lines)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._dropping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Return everything else from the stream itself."""
        return getattr(self._stream, name)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # Python flushes once more when it exits, and would then report what is buffered yet: so the descriptor
            # itself leads nowhere from here on.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let no write to standard output, standard error or a log fail while the block runs."""
    before = sys.stdout, sys.stderr, logging.raiseExceptions
    sys.stdout, sys.stderr = (stream and Lasting(stream) for stream in before[:2])  # type: ignore[assignment]
    # Else each line that a full disk keeps out of dcrun.log is a traceback on the terminal.
    logging.raiseExceptions = False
    try:
        yield
    finally:
        # Here, where a failure costs nothing yet; after this Python has nothing left to flush.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr, logging.raiseExceptions = before
