"""The ranks of a run on several machines, forked into their network namespaces from a process that has torch."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from injection import Hang
from machines import Machine

# As `dcrun` does under a launcher. Torch reads it when it is loaded, by the server that the ranks are forked from.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
NETWORK = 0x40000000
HOSTNAME = 0x04000000
"""Flags of Linux' `setns` and `unshare`."""
SMALL = (
    "cluster=processes",
    "model=mlp",
    "dataset=synthetic",
    "dataset.train=320",
    "dataset.test=20",
    "run.epochs=2",
    "run.threads=1",
    "run.device=cpu",
    "logger=none",
)
ENDLESS = ("run.epochs=5000", "cluster.compute.seconds=0.02", "cluster.compute.distribution=constant")


def rows(folder: Path) -> int:
    """How many evaluations a run has written down so far."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


class Ranks:
    """The ranks of a run, started as torchrun's agents do: on each host as many as are asked for.

    Args:
        folder: where what they print goes, and current folder of all of them.
        places: the host of each rank; the first is rank 0's.
        overrides: of dcrun.
        only: ranks to start; all by default.
        apart: give each host a current folder of its own, as where they share no file system.
    """

    def __init__(
        self,
        folder: Path,
        places: Sequence[Machine],
        *overrides: str,
        only: Sequence[int] = (),
        apart: bool = False,
    ) -> None:
        self.folder = folder
        self.places = places
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["runner.train.ranks", "runner.cli.main"])
        # On a busy machine some ranks may be ready seconds before others: more than `cluster.timeout` may be.
        # Kept, because its semaphores go with it.
        self._ready = context.Barrier(len(only or places))
        self.processes: dict[int, multiprocessing.process.BaseProcess] = {}
        self.ended: dict[int, float] = {}
        order = list(dict.fromkeys(place.name for place in places))
        for rank, place in enumerate(places):
            local = [other for other, machine in enumerate(places) if machine is place]
            environment = {
                "RANK": rank,
                "WORLD_SIZE": len(places),
                "LOCAL_RANK": local.index(rank),
                "LOCAL_WORLD_SIZE": len(local),
                "GROUP_RANK": order.index(place.name),
                "MASTER_ADDR": places[0].address,
                "MASTER_PORT": 29511,
            }
            told = {name: str(value) for name, value in environment.items()}
            resumed = any(item.startswith("run.resume=") for item in overrides)
            command = list(overrides) if resumed else ["hydra.run.dir=run", *SMALL, *overrides]
            current = folder / place.name if apart else folder
            current.mkdir(exist_ok=True)
            if not only or rank in only:
                arguments = (place.namespace, place.name, folder, current, told, command, self._ready)
                self.processes[rank] = context.Process(target=_rank, args=arguments, name=f"rank {rank}")
        for process in self.processes.values():
            process.start()

    def said(self, rank: int) -> list[str]:
        """What a rank printed on stderr."""
        return (self.folder / f"rank{rank}.txt").read_text().splitlines()

    def all_said(self) -> list[str]:
        """What all ranks printed on stderr."""
        return [line for rank in self.processes for line in self.said(rank)]

    def kill(self, *ranks: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send ranks a signal."""
        for rank in ranks:
            pid = self.processes[rank].pid
            assert pid is not None
            os.kill(pid, number)

    def training(self, count: int = 1) -> None:
        """Wait until so many evaluations were written."""
        self.until(lambda: rows(self.folder / "run") >= count, "evaluations")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait for a condition.

        Raises:
            Hang: it does not come, or the run ends before.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            zero = self.processes.get(0)
            ended = zero is not None and zero.exitcode is not None
            if ended or time.monotonic() > deadline:
                raise Hang(f"waited for {what}: {self.codes()} {self.all_said()}")
            time.sleep(0.02)

    def codes(self) -> dict[int, int | None]:
        """The exit codes so far."""
        return {rank: process.exitcode for rank, process in self.processes.items()}

    def end(self, seconds: float = 60.0, *, but: Sequence[int] = ()) -> dict[int, int | None]:
        """Wait until all ranks, or all but some, have ended; note when, and return their exit codes."""
        deadline = time.monotonic() + seconds
        waiting = [rank for rank in self.processes if rank not in but]
        while waiting and time.monotonic() < deadline:
            for rank in list(waiting):
                if self.processes[rank].exitcode is not None:
                    self.ended[rank] = time.monotonic()
                    waiting.remove(rank)
            time.sleep(0.01)
        for rank in [*waiting, *but]:
            self.processes[rank].kill()
        return {rank: None if rank in waiting else self.processes[rank].exitcode for rank in self.processes}

    @property
    def summary(self) -> dict[str, Any]:
        """What the summary says."""
        return json.loads((self.folder / "run" / "summary.json").read_text())


def _rank(
    namespace: str,
    host: str,
    folder: Path,
    current: Path,
    environment: dict[str, str],
    arguments: list[str],
    ready: Any,
) -> None:
    """Be a rank: enter the host, and run the command."""
    library = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as network:
        if library.setns(network.fileno(), NETWORK) or library.unshare(HOSTNAME):
            raise OSError(ctypes.get_errno(), "the host cannot be entered")
    if library.sethostname(host.encode(), len(host)):
        raise OSError(ctypes.get_errno(), "the host cannot be named")
    for number, kind in ((1, "out"), (2, "txt")):
        os.dup2(os.open(folder / f"rank{environment['RANK']}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(current)
    os.environ |= environment
    from runner.cli import main
    from runner.processes import join

    meet = join.meet

    def meet_together(*where: Any) -> Any:
        ready.wait(120)
        return meet(*where)

    join.meet = meet_together
    code = main.main(arguments)
    sys.stderr.flush()
    sys.exit(code)
