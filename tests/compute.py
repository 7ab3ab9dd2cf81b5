"""Compute processes as threads of the test's own process: nothing has to be started, and nothing can be killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from typing import Any

import pytest

from runner.simulated import compute_pool
from runner.simulated.compute_process import do_tasks


class ThreadProcess:
    """What `ComputePool` needs of a process, done by a thread."""

    exitcode = None

    def __init__(self, *, target: Any, args: tuple[Any, ...], name: str, daemon: bool) -> None:
        # Without what a process sets of its signals and its logging, which here are the test's.
        mine = args[0]
        self.name, self.pid = name, 0
        # The other end is closed once the process has started, as a process has a copy of its own.
        self._pipe = multiprocessing.connection.Connection(_copied(mine.fileno()))
        self._thread = threading.Thread(target=do_tasks, args=(self._pipe, *args[1:]), daemon=daemon)

    def start(self) -> None:
        self._thread.start()

    def kill(self) -> None:
        """Nothing: the end of its pipe ends the thread."""

    def join(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)
        self._pipe.close()


def _copied(descriptor: int) -> int:
    return os.dup(descriptor)


class ThreadContext:
    """A context of `multiprocessing` whose processes are threads."""

    Process = ThreadProcess

    def Pipe(self) -> Any:  # noqa: N802 (the name of multiprocessing)
        return multiprocessing.Pipe()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compute processes of a test be threads."""
    monkeypatch.setattr(compute_pool, "forkserver_context", lambda module: ThreadContext())
