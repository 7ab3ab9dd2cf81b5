"""Measures a sweep of 8 small jobs on digits: wall seconds with fresh processes, relative to forked ones; run alone.

    python benchmarks/sweep.py    # four minutes on two idle cores

Both sides run the whole command, two jobs at a time with one thread each; what it takes itself to start counts. The
memory of both is compared on larger data, which forked jobs share. It is the most that all processes of the command
held at a time, where what several share counts once.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from sidebyside import Row, Side, in_turn, main, ratios, sized

JOBS, EPOCHS, ROUNDS = sized(8, 2), sized(5, 1), sized(5, 1)
LINE = (
    *("-m", "algorithm=asgd", "cluster.workers=4", "model=mlp", "logger=none"),
    *("run.device=cpu", "run.threads=1", "hydra.launcher.n_jobs=2", f"seed=range({JOBS})"),
)

SAMPLES, FEATURES = sized(100_000, 1_000), 1_024
NBYTES = 4 * SAMPLES * FEATURES
# So few passes that little but the data counts.
LARGE = (
    *("dataset=synthetic", f"dataset.shape=[{FEATURES}]", f"dataset.train={SAMPLES}", "dataset.test=100"),
    *("run.epochs=0.02", "run.eval_every=0.02"),
)
PAUSE = 0.1
"""Seconds between two looks at the memory."""


def sweeps(fork: bool, folder: Path) -> Side:
    """Return what runs a sweep, and returns sweeps per second."""
    numbers = itertools.count()

    def side() -> float:
        own = [f"hydra.launcher.fork={str(fork).lower()}", f"hydra.sweep.dir={folder / f'{fork}-{next(numbers)}'}"]
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "runner.cli", *LINE, f"run.epochs={EPOCHS}", *own],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return 1 / (time.perf_counter() - begin)

    return side


def peak_memory(fork: bool, folder: Path) -> float:
    """Return the most bytes that the processes of a sweep on larger data held together."""
    own = [f"hydra.launcher.fork={str(fork).lower()}", f"hydra.sweep.dir={folder / f'memory-{fork}'}"]
    line = [*LINE, *own, *LARGE]
    most = 0.0
    with subprocess.Popen([sys.executable, "-m", "runner.cli", *line], stdout=subprocess.DEVNULL) as command:
        while command.poll() is None:
            held = 0
            for process in [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]:
                # Processes come and go, and the last one may be gone already.
                with suppress(psutil.Error):
                    held += process.memory_full_info().pss
            most = max(most, held)
            time.sleep(PAUSE)
    if command.returncode:
        raise RuntimeError(f"{' '.join(line)} ended with exit code {command.returncode}")
    return most


def measure() -> list[Row]:
    """Both in turn; the first sweeps, which may compile bytecode, do not count."""
    # OpenMP's own number of threads would be that of all runs here.
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="dcrun-sweep-") as name:
        fresh, forked = in_turn([sweeps(False, Path(name)), sweeps(True, Path(name))], rounds=ROUNDS, seconds=600)
        own, shared = (peak_memory(fork, Path(name)) for fork in (False, True))
    note = f"a sweep: {1 / statistics.median(fresh):.1f} s with fresh processes"
    note += f", {1 / statistics.median(forked):.1f} s with forked ones"
    what = f"sweep of {JOBS} jobs on digits, two at a time: seconds with fresh processes / with forked ones"
    held = f"the same on {NBYTES / 2**20:.0f} MiB of data: peak memory with fresh processes / with forked ones"
    told = f"{own / 2**20:,.0f} MiB with fresh processes, {shared / 2**20:,.0f} MiB with forked ones"
    return [Row(what, 1.5, ratios(forked, fresh), note=note), Row(held, 1.5, [own / shared], note=told)]


if __name__ == "__main__":
    main(measure)
