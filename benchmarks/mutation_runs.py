"""Runs of pytest on copies of a checkout, each in a process of its own, for `mutations.py`.

Each process is a fork of one that has imported what the tests need, without the checkout's own code. This saves most of
a run's time.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
from mutation_entries import FAILS_ANYWAY, SURVIVED, Mutation

PRELOADED = ("hydra", "hypothesis", "matplotlib", "omegaconf", "rich", "safetensors.torch", "scipy", "sklearn.datasets")
PRELOADED += ("torch", "torchvision", "xdist")
"""Modules that tests import, except the checkout's own."""
GRACE, SLOWDOWN = 60.0, 10.0
"""A mutation may take this many seconds, and this many times as long as its tests took without it."""
FORK = multiprocessing.get_context("fork")


@dataclass(eq=False)  # pytest hashes its plugins
class Verdict:
    """How tests ended.

    Attributes:
        code: pytest's exit code; None if there is none, because the process died or was stopped.
        failed: node ids of the tests that failed, in order; a file's if it could not be imported.
        seconds: what each test took, by node id.
    """

    code: int | None = None
    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def of(self, tests: Sequence[str]) -> Verdict:
        """Return the part that these files or node ids had in it."""

        def named(node: str) -> bool:
            return any(node == test or node.startswith((f"{test}::", f"{test}[")) for test in tests)

        return Verdict(
            self.code,
            [node for node in self.failed if named(node)],
            {node: seconds for node, seconds in self.seconds.items() if named(node)},
        )


def _run_pytest(checkout: Path, output: Path, arguments: Sequence[str], connection: Connection) -> None:
    """Run pytest in this process, a fork of one that has not imported any of the checkout's code; send the verdict."""
    os.setsid()  # what the tests start and leave behind is killed with this process's group
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Processes that tests spawn would import the main program again, which is this file.
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.chdir(checkout)
    path = [str(checkout), str(checkout / "runner" / "cli" / "entry")]
    sys.path[:0] = path
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    verdict = Verdict()
    verdict.code = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[verdict]))
    sys.stdout.flush()
    connection.send((verdict.code, verdict.failed, verdict.seconds))


class Run:
    """One run of pytest in a process of its own.

    Args:
        checkout: where it runs.
        arguments: pytest's.
        limit: seconds after which it is stopped.
    """

    def __init__(self, checkout: Path, arguments: Sequence[str], limit: float) -> None:
        self.output = checkout.with_suffix(".txt")
        self.limit = limit
        self.ends = time.monotonic() + limit
        self.verdicts, theirs = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_run_pytest, args=(checkout, self.output, arguments, theirs))
        self.process.start()
        theirs.close()

    def finish(self) -> Verdict:
        """Wait for the verdict until the time is up, stop what still runs, and return the verdict."""
        verdict = Verdict()
        # A process that died says nothing: the verdict is then one without a code.
        with contextlib.suppress(EOFError):
            if self.verdicts.poll(max(0.0, self.ends - time.monotonic())):
                verdict = Verdict(*self.verdicts.recv())
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()  # before it had a group of its own, or after all of it had ended
        self.process.join()
        return verdict


class Copies:
    """Copies of a checkout's tracked files, and what its tests say in them.

    Args:
        checkout: a work tree of git; uncommitted changes of tracked files count.
        place: an empty folder.
        jobs: how many mutations are tried at a time, each in a copy of its own.
    """

    def __init__(self, checkout: Path, place: Path, jobs: int) -> None:
        # The checkout itself is not looked at again: it may change while tests run.
        self.originals: dict[Path, str] = {}
        self.folders = [place / f"copy{number}" for number in range(jobs)]
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, check=True, capture_output=True, text=True)
        for folder in self.folders:
            for name in filter(None, listed.stdout.split("\0")):
                if (checkout / name).is_file():  # not one that was deleted
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(checkout / name, folder / name)
        # libgomp reads it when torch is loaded, which tests of a fork find done.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("DCRUN_TEST_DATA", str(checkout.parent / "shared" / "data"))
        for name in PRELOADED:
            importlib.import_module(name)

    def untouched(self, tests: Iterable[str]) -> Verdict:
        """Return how the tests end without a mutation.

        Raises:
            ValueError: pytest does not know one of them.
        """
        run = Run(self.folders[0], ["--continue-on-collection-errors", *sorted(set(tests))], limit=3600.0)
        verdict = run.finish()
        if verdict.code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise ValueError(f"pytest ended with {verdict.code} without a mutation:\n{run.output.read_text()[-3000:]}")
        return verdict

    def _write(self, folder: Path, mutation: Mutation, text: str) -> None:
        path = folder / mutation.file
        path.write_text(text)
        # Bytecode is trusted by the source's size and second, which a mutation can leave as they were.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def try_all(self, mutations: Sequence[Mutation], untouched: Verdict) -> Iterator[tuple[Mutation, str]]:
        """Yield each mutation and what caught it, in the order in which their tests end."""
        left, free = list(mutations), list(self.folders)
        running: dict[Connection, tuple[Mutation, Path, Run]] = {}
        while left or running:
            while left and free:
                mutation = left.pop(0)
                before = untouched.of(mutation.tests)
                if before.failed:
                    yield mutation, f"nothing: `{before.failed[0]}` {FAILS_ANYWAY}"
                    continue
                folder = free.pop()
                self.originals[folder] = (folder / mutation.file).read_text()
                self._write(folder, mutation, mutation.apply(folder))
                limit = GRACE + SLOWDOWN * sum(before.seconds.values())
                run = Run(folder, ["-x", *mutation.tests], limit)
                running[run.verdicts] = mutation, folder, run
            until = min((run.ends for _, _, run in running.values()), default=0.0) - time.monotonic()
            ended = {*wait(list(running), max(0.0, until))}
            ended |= {pipe for pipe, (_, _, run) in running.items() if time.monotonic() >= run.ends}
            for pipe in [pipe for pipe in running if pipe in ended]:
                mutation, folder, run = running.pop(pipe)
                yield mutation, self._caught_by(run)
                self._write(folder, mutation, self.originals[folder])
                free.append(folder)

    @staticmethod
    def _caught_by(run: Run) -> str:
        verdict = run.finish()
        if verdict.failed:
            return f"`{verdict.failed[0]}`"
        if verdict.code == pytest.ExitCode.OK:
            return SURVIVED
        if verdict.code is None:
            return f"a hang of over {run.limit:.0f} s" if time.monotonic() >= run.ends else "the death of the process"
        return f"pytest's exit code {verdict.code}"
