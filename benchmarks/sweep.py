"""Measures a sweep of 8 small jobs on digits: wall seconds with fresh processes, relative to forked ones; run alone.

    python benchmarks/sweep.py    # three minutes on two idle cores

Both sides run the whole command, two jobs at a time with one thread each; what it takes itself to start counts.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sidebyside import Row, Side, in_turn, main, ratios, sized

JOBS, EPOCHS, ROUNDS = sized(8, 2), sized(5, 1), sized(5, 1)
LINE = (
    *("-m", "algorithm=asgd", "cluster.workers=4", "model=mlp", "logger=none", f"run.epochs={EPOCHS}"),
    *("run.device=cpu", "run.threads=1", "hydra.launcher.n_jobs=2", f"seed=range({JOBS})"),
)


def sweeps(fork: bool, folder: Path) -> Side:
    """Return what runs a sweep, and returns sweeps per second."""
    numbers = itertools.count()

    def side() -> float:
        own = [f"hydra.launcher.fork={str(fork).lower()}", f"hydra.sweep.dir={folder / f'{fork}-{next(numbers)}'}"]
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "runner.cli", *LINE, *own], stdout=subprocess.DEVNULL, check=True)
        return 1 / (time.perf_counter() - begin)

    return side


def measure() -> list[Row]:
    """Both in turn; the first sweeps, which may compile bytecode, do not count."""
    # OpenMP's own number of threads would be that of all runs here.
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="dcrun-sweep-") as name:
        fresh, forked = in_turn([sweeps(False, Path(name)), sweeps(True, Path(name))], rounds=ROUNDS, seconds=600)
    note = f"a sweep: {1 / statistics.median(fresh):.1f} s with fresh processes"
    note += f", {1 / statistics.median(forked):.1f} s with forked ones"
    what = f"sweep of {JOBS} jobs on digits, two at a time: seconds with fresh processes / with forked ones"
    return [Row(what, 1.5, ratios(forked, fresh), note=note)]


if __name__ == "__main__":
    main(measure)
