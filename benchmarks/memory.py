"""Measures how many weight vectors the process of a simulation holds at its peak, from building to the last checkpoint.

It takes the resident memory that the system reports: the peak of a whole run of DC-ASGD-a (backups and MeanSquare on
the server) minus what the process had before the run was built, in weight vectors. A wide network and small batches
keep everything else small; a tiny run before it loads what torch loads late.

With two compute processes it takes what all processes hold together, pages that several map counted once, looked at
every few milliseconds, beyond the same of one process. A tiny run with as many processes is subtracted from each.
"""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import psutil
from sidebyside import Row, main, sized
from subject import build_components, run

from runner.run_folder.machine import peak_memory_bytes

WORKERS = sized((4, 8), (2,))
WIDTHS = sized("[3072,3072,3072]", "[1024,1024,1024]")
PROCESSES = 2
A_PROCESS = 3.0
"""Weight vectors that a compute process may hold: a replica, which is weights and their gradient, and one result."""
LOOK_SECONDS = 0.02


def resident_bytes() -> int:
    """Resident memory of this process now, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmRSS")


def common_overrides(workers: int) -> list[str]:
    """Return what all runs are asked for, whatever their network."""
    data = ["dataset=synthetic", "dataset.train=64", "dataset.test=10", "run.batch_size=2", "run.threads=1"]
    return ["algorithm=dc_asgd_a", f"cluster.workers={workers}", "model=mlp", "run.epochs=1", *data]


def vectors(workers: int) -> float:
    """Make the run in this process and count."""
    common = common_overrides(workers)
    run(build_components([*common, "model.widths=[8]"]))
    gc.collect()
    before = resident_bytes()
    given = build_components([*common, f"model.widths={WIDTHS}"])
    vector = 4 * given.oracle.replica.weights.numel()
    run(given)
    return (peak_memory_bytes() - before) / vector


class Peak:
    """The most that this process and those below it held together, in bytes, since it was made."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            held = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                # It may have ended since it was listed.
                with contextlib.suppress(psutil.Error):
                    held += process.memory_full_info().pss
            self.bytes = max(self.bytes, held)

    def end(self) -> int:
        """Look no more, and return the bytes."""
        self._over.set()
        self._thread.join()
        return self.bytes


def vectors_of_all(processes: int) -> float:
    """Make the run with so many compute processes, and count what all hold at their peak."""
    common = [*common_overrides(4), f"run.compute_processes={processes}"]
    peaks, vector = list[int](), 0
    for widths in ("[8]", WIDTHS):
        given = build_components([*common, f"model.widths={widths}"])
        vector = 4 * given.oracle.replica.weights.numel()
        peak = Peak()
        run(given)
        peaks.append(peak.end())
        del given
        gc.collect()
    return (peaks[1] - peaks[0]) / vector


def of_compute_processes() -> Row:
    """Return what compute processes take beyond one process."""
    what = f"weight vectors held by {PROCESSES} compute processes, beyond one process"
    several, one = (float(in_a_process("all", str(count))) for count in (PROCESSES, 1))
    note = f"a replica and a gradient vector for each; {one:.2f} vectors in one process, {several:.2f} in all"
    return Row(what, PROCESSES * A_PROCESS, [several - one], at_least=False, unit="vectors", note=note)


def in_a_process(*arguments: str) -> str:
    """Return what a fresh process says, since a peak never falls."""
    return subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True).stdout


def measure() -> list[Row]:
    """A fresh process for each number of workers."""
    rows = []
    for workers in WORKERS:
        what = f"weight vectors held by a simulation of {workers} workers"
        try:
            held = float(in_a_process(str(workers)))
        except subprocess.CalledProcessError as error:
            rows.append(Row(what, workers + 6, [], note=error.stderr.strip().splitlines()[-1]))
            continue
        rows.append(
            Row(
                what,
                workers + 6,
                [held],
                at_least=False,
                unit="vectors",
                note="at most M + 6 vectors for M workers",
            )
        )
    return [*rows, of_compute_processes()]


def answer(arguments: Sequence[str]) -> float:
    """Return what the parent process asks for."""
    return vectors_of_all(int(arguments[1])) if arguments[0] == "all" else vectors(int(arguments[0]))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[-1].isdigit():
        print(answer(sys.argv[1:]))
    else:
        main(measure)
