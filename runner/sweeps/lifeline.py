"""A job of a sweep ends with the sweep, however that ends: both hold an end of a pipe that nobody writes to.

The system closes the sweep's end when the sweep ends. The job then reads the end of the pipe, and stops as at SIGTERM:
it saves, and the sweep can go on with it later.
"""

import os
import signal
import threading

PIPE = "DCRUN_SWEEP_PIPE"
"""Environment variable by which a job knows its end of the pipe."""


class Lifeline:
    """The sweep's end of the pipe; it must live as long as the sweep does.

    Attributes:
        end: descriptor of the jobs' end, to be passed on to each of them.
    """

    def __init__(self) -> None:
        self.end, self._own = os.pipe()

    def environment(self) -> dict[str, str]:
        """Return the variable for a job's environment."""
        return {PIPE: str(self.end)}

    def close(self) -> None:
        """End the lifeline; jobs that run end too."""
        os.close(self._own)
        os.close(self.end)


def hold() -> None:
    """In a job, hold the lifeline of its sweep; in any other process this does nothing."""
    # Not for the processes that the job starts: they end with the job.
    text = os.environ.pop(PIPE, None)
    if text is None:
        return
    end = int(text)
    os.set_inheritable(end, False)
    threading.Thread(target=_stop_at_its_end, args=(end,), daemon=True, name="lifeline").start()


def _stop_at_its_end(end: int) -> None:
    # Nobody writes: the call returns when the last process that holds the other end is gone.
    os.read(end, 1)
    os.kill(os.getpid(), signal.SIGTERM)
