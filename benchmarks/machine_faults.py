"""Faults of runs on several machines: wires that are cut, hosts whose processes die, for `benchmarks/faults.py`.

The machines are network namespaces (`benchmarks/machines.py`), which only root can make. Machine a has the server, or
ranks 0 and 1 of a collective, machine b the two ranks that are lost unless a row says another thing.
"""

from __future__ import annotations

import datetime
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from injection import Run
from machine_ranks import Ranks
from machines import Machine, machines
from tries import Try, used

DATA = ("dataset=synthetic", "dataset.train=1440", "dataset.test=100", "run.batch_size=32", "model=mlp")
BATCHES = 90
ASYNC = (*DATA, "algorithm=asgd", "run.epochs=2", "cluster.compute.seconds=0.3", "cluster.timeout=5")
SYNC = (*DATA, "algorithm=ssgd", "run.epochs=6", "cluster.compute.seconds=0.1", "cluster.timeout=5")
"""66 steps, each followed by an all-reduce."""
SAVING = ("run.eval_every=0.25", "run.keep_checkpoints=3")
LARGE = ("model.widths=[3000,2000]", "run.batch_size=96")
"""Messages of 25 MB, which take a second on a wire of 200 Mbit/s."""
LARGE_BATCHES = 30
MACHINE_KINDS = {
    "cut_computing": "machines: wire cut, computing",
    "cut_idle": "machines: wire cut, idle",
    "cut_in_message": "machines: wire cut inside a 25 MB message",
    "cut_server": "machines: wire of the server's host cut",
    "cut_collective": "machines: wire cut, collective",
    "cut_pipeline": "machines: wire cut, pipeline",
    "killed_host": "machines: one host's processes killed",
    "killed_host_collective": "machines: one host's processes killed, collective",
    "stuck_far_worker": "machines: worker stopped (SIGSTOP)",
    "mended": "machines: wire cut and mended in time",
}


class MachineFaults:
    """Makes the faults; each method is one try of a kind.

    Args:
        folder: for the runs.
        replay: replays a run's folder with overrides, and returns 1 if the weights are not the same.
        pause: lets some time pass.
    """

    def __init__(self, folder: Path, replay: Callable[..., int], pause: Callable[[], None]) -> None:
        self.folder = folder
        self.replay = replay
        self.pause = pause
        self.number = 0
        self.references: dict[Sequence[str], str] = {}

    @contextmanager
    def _run(self, *overrides: str, before: Callable[[Machine], object] = lambda machine: None) -> Any:
        """Start four ranks, two on each of two machines, and wait until they train."""
        self.number += 1
        folder = self.folder / f"machines{self.number}"
        folder.mkdir()
        with machines(2) as (a, b):
            before(b)
            ranks = Ranks(folder, [a, a, b, b], *overrides)
            ranks.until(lambda: (folder / "run" / "timeline.jsonl").exists(), "training to begin", 120)
            yield ranks, Run(folder / "run"), a, b

    def _went_on(
        self,
        hurt: Callable[[Ranks, Machine, Machine], object],
        *overrides: str,
        what: str = "host b",
        lost: int = 2,
        batches: int = BATCHES,
        before: Callable[[Machine], object] = lambda machine: None,
    ) -> Try:
        """A server's run is hurt; the workers that are left have to finish it."""
        with self._run(*overrides, before=before) as (ranks, run, a, b):
            since = hurt(ranks, a, b) or datetime.datetime.now()
            codes = ranks.end(240)
        seconds = run.noticed(f"lost after update.*{what}", since)
        good = codes[0] == 0 and run.summary["workers_lost"] == lost and seconds is not None
        wrong = used(run, batches) + self.replay(run, *overrides, "cluster.workers=3") if codes[0] == 0 else 1
        return Try(good, wrong, seconds, "" if good else f"{codes} {run.log[-1500:]}")

    def _stopped(self, hurt: Callable[[Ranks, Machine], object], *overrides: str) -> Try:
        """A run is hurt that cannot do without the ranks; it has to stop, and to be continued on the same machines."""
        with self._run(*overrides) as (ranks, run, a, b):
            ranks.until(lambda: "dcrun: checkpoint step" in run.log, "a checkpoint")
            self.pause()
            since = hurt(ranks, b) or datetime.datetime.now()
            codes = ranks.end(60)
            seconds = run.noticed("host b.*the run stopped", since)
            b.mend()
            again = Ranks(ranks.folder, [a, a, b, b], "run.resume=run").end(120)
        stopped = set(codes.values()) <= {3, -9} and codes[0] == 3
        good = stopped and seconds is not None and set(again.values()) == {0}
        wrong = int(run.summary["weights_sha256"] != self._reference(overrides)) if good else 1
        return Try(good, wrong, seconds, "" if good else f"{codes} {again} {run.log[-1500:]}")

    def _reference(self, overrides: Sequence[str]) -> str:
        """Return the weights of an undisturbed run."""
        if overrides not in self.references:
            with self._run(*overrides) as (ranks, run, _, _):
                ranks.end(120)
            self.references[overrides] = run.summary["weights_sha256"]
        return self.references[overrides]

    def _cut(self, ranks: Ranks, a: Machine, b: Machine) -> datetime.datetime:
        ranks.training()
        self.pause()
        b.cut()
        return datetime.datetime.now()

    # Kinds of faults. Each is one try.

    def cut_computing(self) -> Try:
        """The wire of two workers is cut while they compute."""
        return self._went_on(self._cut, *ASYNC, *SAVING)

    def cut_idle(self) -> Try:
        """The wire of two workers is cut that have nothing to do any more: the third is slow with the last batches."""

        def hurt(ranks: Ranks, a: Machine, b: Machine) -> datetime.datetime:
            time.sleep(4.0)
            b.cut()
            return datetime.datetime.now()

        slow = ("cluster.compute.speeds=[0.02,1,1]", "run.epochs=0.3")
        return self._went_on(hurt, *ASYNC, *slow, batches=14)

    def cut_in_message(self) -> Try:
        """The wire is cut while 25 MB are on it."""

        def hurt(ranks: Ranks, a: Machine, b: Machine) -> datetime.datetime:
            self.pause()
            b.cut()
            return datetime.datetime.now()

        return self._went_on(
            hurt, *ASYNC, *LARGE, batches=LARGE_BATCHES, before=lambda machine: machine.slow_down("200mbit")
        )

    def cut_server(self) -> Try:
        """The wire of the server's own host is cut: it goes on with the worker that is left there."""

        def hurt(ranks: Ranks, a: Machine, b: Machine) -> datetime.datetime:
            ranks.training()
            self.pause()
            a.cut()
            return datetime.datetime.now()

        return self._went_on(hurt, *ASYNC, *SAVING)

    def cut_collective(self) -> Try:
        """The wire of two ranks of a collective is cut."""
        return self._stopped(lambda ranks, b: b.cut(), *SYNC, *SAVING)

    def cut_pipeline(self) -> Try:
        """The wire of two modules of a pipeline is cut."""
        pipeline = ("algorithm=ddg", "model.widths=[16,16,16]")
        return self._stopped(lambda ranks, b: b.cut(), *SYNC, *SAVING, *pipeline)

    def killed_host(self) -> Try:
        """SIGKILL of two workers at once."""

        def hurt(ranks: Ranks, a: Machine, b: Machine) -> datetime.datetime:
            ranks.training()
            self.pause()
            ranks.kill(2, 3)
            return datetime.datetime.now()

        return self._went_on(hurt, *ASYNC, *SAVING)

    def killed_host_collective(self) -> Try:
        """SIGKILL of two ranks of a collective at once."""
        return self._stopped(lambda ranks, b: ranks.kill(2, 3), *SYNC, *SAVING)

    def stuck_far_worker(self) -> Try:
        """SIGSTOP of a worker on another machine than the server's."""

        def hurt(ranks: Ranks, a: Machine, b: Machine) -> datetime.datetime:
            ranks.training()
            self.pause()
            ranks.kill(3, number=signal.SIGSTOP)
            return datetime.datetime.now()

        return self._went_on(hurt, *ASYNC, *SAVING, lost=1)

    def mended(self) -> Try:
        """The wire is cut for less than `cluster.timeout`: nothing may happen, to the last bit."""
        overrides = (*SYNC, *SAVING)
        with self._run(*overrides) as (ranks, run, _, b):
            ranks.training()
            self.pause()
            b.cut()
            time.sleep(2.5)
            b.mend()
            codes = ranks.end(120)
        good = set(codes.values()) == {0} and ranks.all_said() == []
        wrong = int(run.summary["weights_sha256"] != self._reference(overrides))
        return Try(good, wrong, None, "" if good else f"{codes} {ranks.all_said()}")
