"""Jobs of a sweep that are forked from a warm process, which has imported what every run needs: torch above all.

A fresh Python takes seconds to import that, and close to one to take it down again. A forked job has it at once, and
ends without taking anything down. In everything else it is the process that `python -m <PROGRAM> <overrides>` would be:
a session of its own, the sweep's environment and current folder, its own output, signals as Python sets them. The warm
process itself computes nothing, so no job inherits threads, random numbers or anything else of a run. If all jobs name
the same data, it has loaded them (`sweeps.warm_data`), and the jobs share their memory.

A GPU cannot be used by two processes of which one was forked from the other after it had begun to use it, and libraries
look at the GPUs at odd times: jobs that may run on one are fresh processes (`may_fork`).
"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection, reduction
from multiprocessing.context import ForkServerContext
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config import own_code, signals
from runner.config.forkserver import fork_server, forkserver_context
from runner.config.installation import COMMAND, PROGRAM
from runner.config.resources import gpus

WARM = ("runner.train.dispatch", COMMAND)
"""What the warm process imports."""
DATA = "DCRUN_WARM_DATA"
"""Environment variable with the configuration, as YAML, of the data set that the warm process loads."""
# `multiprocessing` keeps one list of processes, and asks all of them how they are whenever one starts. Two threads that
# ask at the same time would take each other's answer.
_LOCK = threading.Lock()


def may_fork(device: str) -> bool:
    """Return whether a job with this `run.device` may be forked from the warm process."""
    return device == "cpu" or gpus() == 0


def warm(jobs: Iterable[DictConfig]) -> ForkServerContext:
    """Return a context whose processes are forked from the warm one, which is started if it is not there.

    Call this in the main thread: the warm process ends when the thread that started it does.

    Args:
        jobs: the configurations of those that are to be forked.
    """
    jobs = list(jobs)
    logs = any(job.logger.kind == "wandb" and job.logger.mode != "disabled" for job in jobs)
    data = shared_data(jobs)
    modules = [*WARM, *(["wandb"] if logs else []), *(["runner.sweeps.warm_data"] if data else [])]
    return forkserver_context(*modules, told={DATA: data} if data else None)


def shared_data(jobs: Sequence[DictConfig]) -> str | None:
    """Return the configuration, as YAML, of the data set that all jobs name, if the warm process may load it.

    A data set of the user's own may start threads, which no fork survives, or draw random numbers.
    """
    named = {OmegaConf.to_yaml(job.dataset, resolve=True) for job in jobs if may_fork(job.run.device)}
    if len(jobs) < 2 or len(named) != 1 or not own_code.is_projects_alone(jobs[0].dataset):
        return None
    return named.pop()


class ForkedJob:
    """A job that runs. It has the interface of `subprocess.Popen` as far as the launcher uses it.

    Args:
        context: see `warm`.
        arguments: the overrides of the job's command line.
        environment: all of its variables.
        output: descriptor that takes what it prints; None for this process's own standard output and error.
        passed: descriptors that the job gets besides, by the variable that tells it their number.
        serves: whether the job forks a server of its own, for the processes that it will start.

    Raises:
        OSError: the warm process is gone.
    """

    def __init__(
        self,
        context: ForkServerContext,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        output: int | None,
        passed: Mapping[str, int],
        serves: bool = False,
    ) -> None:
        streams = [_Descriptor(1 if output is None else output), _Descriptor(2 if output is None else output)]
        given = {name: _Descriptor(number) for name, number in passed.items()}
        self._process = context.Process(
            target=_job_main, args=(list(arguments), dict(environment), streams, given, serves)
        )
        with _LOCK:
            try:
                self._process.start()
            except EOFError as exc:
                raise OSError("the process that jobs are forked from is gone") from exc
        assert self._process.pid is not None
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        """Send the job a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the job's end; return its exit code, minus the number of the signal that ended it."""
        connection.wait([self._process.sentinel])
        with _LOCK:
            self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


Process = subprocess.Popen[bytes] | ForkedJob
"""A job's process."""


def send(process: Process, number: int) -> None:
    """Send a job a signal, Ctrl-C to all its processes as a terminal does; nothing if it has ended."""
    with suppress(ProcessLookupError):
        if number == signal.SIGINT:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                return
        # A forked job has no group of its own in its very first moment.
        process.send_signal(number)


class _Descriptor:
    """A file descriptor that goes along when a process is started; there `detach` returns its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.number),)

    def detach(self) -> int:
        return self.number


def _received(descriptor: Any) -> _Descriptor:
    return _Descriptor(descriptor.detach())


def _job_main(
    arguments: list[str],
    environment: dict[str, str],
    streams: list[_Descriptor],
    passed: dict[str, _Descriptor],
    serves: bool,
) -> None:
    """Be the job: what this does in a forked process, the system and Python do in a fresh one."""
    os.setsid()
    # Should the warm process be killed, nobody would learn any more how the job ends: so it saves and stops.
    signals.send_at_parents_end(signal.SIGTERM)
    for number, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream.detach(), number)
        os.close(stream.detach())
    for stream in (sys.stdout, sys.stderr):
        # Opened by the warm process for its own output, which may have been no terminal, or one.
        stream.reconfigure(line_buffering=stream.isatty() or stream is sys.stderr)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment | {name: str(stream.detach()) for name, stream in passed.items()})
    if serves:
        # Now, when there is no other thread: once the job has computed or logged, it cannot be forked any more.
        fork_server()
    sys.argv = [PROGRAM, *arguments]
    try:
        runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    finally:
        # `multiprocessing` ends the process right after this and, before Python 3.14, without what libraries have asked
        # for: logs are closed here, and wandb's own process ends. Nothing else is taken down.
        atexit._run_exitfuncs()
