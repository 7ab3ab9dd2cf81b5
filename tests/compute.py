"""Compute processes as threads of the test's own process: nothing has to be started, and nothing can be killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from typing import Any

import pytest

from runner.simulated import compute_pool
from runner.simulated.compute_process import do_tasks


class ThreadProcess:
    """What `ComputePool` needs of a process, done by a thread."""

    exitcode = None

    def __init__(self, *, target: Any, args: tuple[Any, ...], name: str, daemon: bool) -> None:
        self.name, self.pid = name, 0
        # The pool closes its own handle once a process has started; a process has a copy, and so has the thread.
        self._pipe = Connection(os.dup(args[0].fileno()))
        # Not `target`, which first sets signals and logging of its process: here they are the test's.
        self._thread = threading.Thread(target=do_tasks, args=(self._pipe, *args[1:]), daemon=daemon)

    def start(self) -> None:
        self._thread.start()

    def kill(self) -> None:
        """Do nothing: the end of its pipe ends the thread."""

    def join(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)
        self._pipe.close()


class ThreadContext:
    """A context of `multiprocessing` whose processes are threads."""

    Process = ThreadProcess

    def Pipe(self) -> Any:  # noqa: N802 (multiprocessing's name)
        return multiprocessing.Pipe()


def use_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compute processes of a test be threads."""
    monkeypatch.setattr(compute_pool, "forkserver_context", lambda module: ThreadContext())
