"""Ends the process of a command as Python would, but leaves out what Python does last and nobody needs.

Python takes down every module before a process ends. With PyTorch imported this costs half a second, in which the
command has said all, and a shell waits for its next prompt.
"""

import atexit
import ctypes
import os
import sys
import threading
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, when all threads and all that was registered for its end are done.

    If output cannot be written any more, Python ends the process in its own way, and says so.
    """
    # In Python's own order. Threads that wait for work, as those of an executor, are told here that none will come.
    threading._shutdown()  # type: ignore[attr-defined]
    # Logs are closed here, wandb's process and this one's children end, temporary files go.
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    # What libraries print from C waits in buffers of its own.
    ctypes.CDLL(None).fflush(None)
    os._exit(code)
