"""Causes faults by the hundred: kills and stops ranks, cuts and flips files, fills the disk, and looks what runs do.

    python benchmarks/faults.py [--tries 10] [--only NAME] [--outputs FOLDER]

A try survived if the run ended as it should: either the other ranks finished it, or it ended with exit code 3 and came
to its end when it was continued. A batch is lost if it was never used or used twice, counted from the trace. Every run
is compared with its replay or with an undisturbed run: weights that differ by a bit would be a silent corruption, and
count as lost too.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import random
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from injection import Hang, Host, Run, TooLate, alive, catch_in_transfer, until
from machine_faults import MACHINE_KINDS, MachineFaults
from machines import missing
from rich.console import Console
from rich.table import Table
from sidebyside import sized
from tries import Try, used

DATA = ("dataset=synthetic", "dataset.train=1440", "dataset.test=100", "run.epochs=2", "run.batch_size=32")
BATCHES = 90
COMMON = (*DATA, "model=mlp", "cluster=processes", "cluster.workers=3", "cluster.timeout=5")
ASYNC = (*COMMON, "algorithm=asgd", "cluster.compute.seconds=0.08")
SAVING = ("run.eval_every=0.25", "run.keep_checkpoints=3")
SYNC = (*COMMON, "algorithm=ssgd", *SAVING)
"""30 steps, each followed by an all-reduce."""
LARGE = ("model.widths=[3000,2000]", "run.batch_size=96", "run.epochs=2")
"""Messages of 25 MB: more than the sockets between two processes hold."""
LARGE_BATCHES = 30


def alive_at_end(run: Run, worker: str, since: datetime.datetime) -> bool:
    """Whether a run took no notice of a fault because it was over: its result came within a second of it."""
    written = datetime.datetime.fromtimestamp((run.folder / "summary.json").stat().st_mtime)
    return run.noticed(f"{worker} lost", since) is None and (written - since).total_seconds() < 1


class Bench:
    """Makes runs and hurts them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.host = Host(folder)
        self.number = 0
        self.reference: str | None = None
        self.machines = MachineFaults(folder, self.replayed, self.moment)

    def start(self, *overrides: str) -> Run:
        """Start a run in a folder of its own."""
        self.number += 1
        return self.host.start(self.folder / f"run{self.number}", *overrides)

    def again(self, run: Run, *overrides: str) -> int:
        """Continue a run to its end."""
        return self.host.start(run.folder, *overrides, resume=True).end()

    def replayed(self, run: Run, *overrides: str) -> int:
        """Replay a run in simulation and return 1 if the weights are not the same."""
        simulated = [o for o in overrides if not o.startswith(("cluster", "run.keep"))]
        replay = self.start(*simulated, "cluster=replay", f"cluster.trace={run.folder}")
        if replay.end() != 0:
            return 1
        return int(replay.summary["weights_sha256"] != run.summary["weights_sha256"])

    def moment(self) -> None:
        """Let some time pass."""
        time.sleep(self.random.uniform(0.05, 0.6))

    def worker_lost(
        self, hurt: Callable[[Run, str], datetime.datetime], *overrides: str, batches: int = BATCHES
    ) -> Try:
        """A worker of an asynchronous run is hurt; the others have to finish its work."""
        run = self.start(*overrides).training()
        worker = f"worker {self.random.randrange(3)}"
        since = hurt(run, worker)
        code = run.end()
        if code == 0 and not run.summary["workers_lost"] and alive_at_end(run, worker, since):
            raise TooLate("the run ended meanwhile")
        seconds = run.noticed(f"{worker} lost", since)
        lost = used(run, batches) + self.replayed(run, *overrides)
        good = code == 0 and run.summary["workers_lost"] == 1 and seconds is not None and not run.orphans()
        return Try(good, lost, seconds, "" if good else run.log[-1500:])

    def stopped(self, number: signal.Signals, who: str, what: str, *overrides: str) -> Try:
        """A rank is hurt that the run cannot do without; it has to stop, and to be continued."""
        run = self.start(*overrides).saved()
        self.moment()
        since = run.signal(who, number)
        code = run.end()
        seconds = run.noticed(what, since)
        orphans = run.orphans()
        resumed = self.again(run, *overrides)
        good = code == 3 and seconds is not None and not orphans and resumed == 0
        return Try(good, self._damage(run, *overrides) if resumed == 0 else 1, seconds, "" if good else run.log[-1500:])

    def _damage(self, run: Run, *overrides: str) -> int:
        if "algorithm=asgd" in overrides:
            return used(run, BATCHES) + self.replayed(run, *overrides)
        if self.reference is None:
            whole = self.start(*overrides)
            whole.end()
            self.reference = whole.summary["weights_sha256"]
        return int(run.summary["weights_sha256"] != self.reference)

    def make(self, kind: str) -> Try:
        """Make one fault; again where the run was over before it could be hurt."""
        for _ in range(10):
            with contextlib.suppress(TooLate):
                return getattr(self.machines if kind in MACHINE_KINDS else self, kind)()
        raise Hang(f"{kind}: ten runs were over before they could be hurt")

    # Kinds of faults. Each is one try.

    def killed_computing(self) -> Try:
        """SIGKILL while workers compute."""

        def hurt(run: Run, worker: str) -> datetime.datetime:
            self.moment()
            return run.signal(worker, signal.SIGKILL)

        return self.worker_lost(hurt, *ASYNC)

    def killed_idle(self) -> Try:
        """SIGKILL of a worker that has nothing to do any more: the others are slow with the last batches."""
        run = self.start(*ASYNC, "cluster.compute.speeds=[1,1,0.01]", "run.epochs=0.3").training()
        time.sleep(3.0)  # 13 of 14 batches take the two fast workers a sixth of that, the slow one eight seconds
        worker = f"worker {self.random.randrange(2)}"
        since = run.signal(worker, signal.SIGKILL)
        code = run.end()
        seconds = run.noticed(f"{worker} lost.*it held no batch", since)
        good = code == 0 and seconds is not None and run.summary["workers_lost"] == 1
        return Try(good, used(run, 14) + self.replayed(run, *ASYNC, "run.epochs=0.3"), seconds, run.log[-1500:])

    def killed_pushing(self) -> Try:
        """SIGKILL in the middle of a large message to the server."""

        def hurt(run: Run, worker: str) -> datetime.datetime:
            catch_in_transfer(run.ranks[worker], run.ranks["server"])
            since = run.signal(worker, signal.SIGKILL)
            run.signal("server", signal.SIGCONT)
            return since

        return self.worker_lost(hurt, *ASYNC, *LARGE, batches=LARGE_BATCHES)

    def killed_pulling(self) -> Try:
        """SIGKILL in the middle of a large message from the server."""

        def hurt(run: Run, worker: str) -> datetime.datetime:
            catch_in_transfer(run.ranks["server"], run.ranks[worker])
            return run.signal(worker, signal.SIGKILL)

        return self.worker_lost(hurt, *ASYNC, *LARGE, batches=LARGE_BATCHES)

    def stuck_worker(self) -> Try:
        """SIGSTOP of a worker."""

        def hurt(run: Run, worker: str) -> datetime.datetime:
            self.moment()
            return run.signal(worker, signal.SIGSTOP)

        return self.worker_lost(hurt, *ASYNC)

    def killed_server(self) -> Try:
        """SIGKILL of the parameter server."""
        return self.stopped(signal.SIGKILL, "server", "server .*SIGKILL", *ASYNC, *SAVING)

    def stuck_server(self) -> Try:
        """SIGSTOP of the parameter server."""
        return self.stopped(signal.SIGSTOP, "server", "server .*stuck", *ASYNC, *SAVING)

    def killed_collective(self) -> Try:
        """SIGKILL of a rank of a collective run."""
        who = f"worker {self.random.randrange(3)}"
        return self.stopped(signal.SIGKILL, who, f"{who} .*SIGKILL", *SYNC, *SLOW)

    def stuck_collective(self) -> Try:
        """SIGSTOP of a rank of a collective run."""
        who = f"worker {self.random.randrange(3)}"
        return self.stopped(signal.SIGSTOP, who, f"{who} .*stuck", *SYNC, *SLOW)

    def killed_launcher(self) -> Try:
        """SIGKILL of the launching process: nothing else may stay."""
        run = self.start(*ASYNC, *SAVING).saved()
        self.moment()
        ranks = run.ranks
        since = time.monotonic()
        self.host.process.kill()
        self.host.process.wait()
        try:
            until(lambda: not any(alive(pid) for pid in ranks.values()), "the orphans to end", 30)
            seconds = time.monotonic() - since
        except Hang:
            seconds = None
        self.host = Host(self.folder)
        code = self.again(run, *ASYNC, *SAVING)
        good = code == 0 and seconds is not None
        return Try(good, self._damage(run, *ASYNC, *SAVING) if code == 0 else 1, seconds, run.log[-1500:])

    def damaged_checkpoint(self) -> Try:
        """The newest checkpoint of a stopped run is cut, or a bit of it flipped."""
        run = self.start(*ASYNC, *SAVING).saved(2)
        run.signal("server", signal.SIGKILL)
        run.end()
        newest = max((run.folder / "checkpoints").glob("step-*.pt"))
        content = bytearray(newest.read_bytes())
        place = self.random.randrange(len(content))
        if self.random.random() < 0.5:
            del content[place:]
        else:
            content[place] ^= 1 << self.random.randrange(8)
        newest.write_bytes(content)
        code = self.again(run, *ASYNC, *SAVING)
        good = code == 0 and f"checkpoint {newest} is damaged" in run.log
        return Try(good, self._damage(run, *ASYNC, *SAVING) if code == 0 else 1, None, run.log[-1500:])

    def killed_saving(self) -> Try:
        """SIGKILL of the server while it writes a checkpoint: the temporary file is there, or just renamed."""
        saving = ("run.eval_every=0.05", "run.keep_checkpoints=2")
        run = self.start(*ASYNC, *saving).saved()
        place = run.folder / "checkpoints"
        with contextlib.suppress(Hang):
            until(lambda: any(place.glob(".step-*.tmp")), "a checkpoint being written", 1.0, every=0.0005)
        run.signal("server", signal.SIGKILL)
        run.end()
        announced = [line.split()[-1] for line in run.log.splitlines() if "INFO dcrun: checkpoint step" in line]
        kept = all((place / name).exists() for name in announced[-2:])
        code = self.again(run, *ASYNC, *saving)
        good = code == 0 and kept and "damaged" not in run.log
        return Try(good, self._damage(run, *ASYNC, *saving) if code == 0 else 1, None, run.log[-1500:])

    def full_disk(self) -> Try:
        """After a first checkpoint no file of the server may grow beyond a limit, and then it is killed."""
        wide = (*ASYNC, *SAVING, "model.widths=[400]")
        run = self.start(*wide).saved()
        limit = self.random.choice([500, 60_000])
        try:
            resource.prlimit(run.ranks["server"], resource.RLIMIT_FSIZE, (limit, limit))
        except ProcessLookupError as error:
            raise TooLate("the server has ended") from error
        if limit == 60_000:
            # The rest fits, checkpoints (120 kB) do not: the run says so and goes on.
            until(lambda: "could not be written" in run.log or run.code is not None, "a warning")
            run.signal("server", signal.SIGKILL)
        code = run.end()  # where nothing fits any more it fails by itself
        left = list((run.folder / "checkpoints").glob(".step-*.tmp"))
        good = code != 0 and not left and self.again(run, *wide) == 0
        return Try(good, self._damage(run, *wide) if good else 1, None, run.log[-1500:])

    def damaged_trace(self) -> Try:
        """A trace is cut or a bit flipped: the replay is refused, or warns that it is of a part, or is the same run."""
        simulated = (*DATA, "model=mlp", "algorithm=asgd")
        run = self.start(*simulated, "cluster.record=true")
        run.end()
        path = run.folder / "trace.jsonl"
        content = bytearray(path.read_bytes())
        place = self.random.randrange(len(content))
        if self.random.random() < 0.5:
            del content[place:]
        else:
            content[place] ^= 1 << self.random.randrange(7)
        path.write_bytes(content)
        replay = self.start(*simulated, "cluster=replay", f"cluster.trace={run.folder}")
        code = replay.end()
        told = code == 2 or "part of a run" in replay.log or "was recorded with" in replay.log
        same = code == 0 and replay.summary["weights_sha256"] == run.summary["weights_sha256"]
        return Try(told or same, int(not told and not same), None, replay.log[-1500:])


SLOW = ("cluster.compute.seconds=0.1",)
KINDS: dict[str, str] = {
    "killed_computing": "worker killed, computing",
    "killed_idle": "worker killed, idle",
    "killed_pushing": "worker killed inside a 25 MB push",
    "killed_pulling": "worker killed inside a 25 MB pull",
    "stuck_worker": "worker stopped (SIGSTOP)",
    "killed_server": "server killed",
    "stuck_server": "server stopped (SIGSTOP)",
    "killed_collective": "collective rank killed",
    "stuck_collective": "collective rank stopped (SIGSTOP)",
    "killed_launcher": "launcher killed",
    "killed_saving": "server killed writing a checkpoint",
    "damaged_checkpoint": "newest checkpoint cut or flipped",
    "damaged_trace": "trace cut or flipped",
    "full_disk": "disk full (file size limit)",
    **MACHINE_KINDS,
}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    """Make the faults and print the table; the exit code is 1 if any was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tries", type=int, default=sized(8, 1), help="of each fault")
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--outputs", type=Path, help="write the single tries there, as JSON lines")
    arguments = parser.parse_args()
    table = Table(title="faults")
    for column in ("fault", "tries", "survived", "lost", "seconds to notice: median", "max"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    console, folder = Console(width=120), Path(tempfile.mkdtemp(prefix="dcrun-faults-"))
    bench = Bench(folder, arguments.seed)
    hangs = bad = total = 0
    unavailable = missing()
    for name, label in KINDS.items():
        if arguments.only and name not in arguments.only:
            continue
        if name in MACHINE_KINDS and unavailable:
            print(f"{label}: left out, {unavailable}", flush=True)
            continue
        tries = []
        for number in range(arguments.tries):
            try:
                tries.append(bench.make(name))
            except Hang as hang:
                hangs += 1
                tries.append(Try(False, 0, None, f"hang: {hang}"))
                bench.host.process.kill()
                bench.host = Host(folder)
            result = tries[-1]
            print(f"{label} {number + 1}: {result._replace(why='' if result.survived else result.why)}", flush=True)
            if arguments.outputs:
                with open(arguments.outputs, "a") as file:
                    file.write(json.dumps({"fault": name, **result._asdict()}) + "\n")
        seconds = [result.seconds for result in tries if result.seconds is not None]
        survived, lost = sum(result.survived for result in tries), sum(result.lost for result in tries)
        times = (f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}") if seconds else ("", "")
        table.add_row(label, str(len(tries)), str(survived), str(lost), *times)
        total += len(tries)
        bad += lost + len(tries) - survived
    bench.host.close()
    shutil.rmtree(folder, ignore_errors=True)
    console.print(table)
    console.print(f"{total} faults, {hangs} hangs, {bad} not as they should be")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
