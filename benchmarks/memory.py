"""Measures how many weight vectors the process of a simulation holds at its peak, from building to the last checkpoint.

It takes the resident memory that the system reports: the peak of a whole run of DC-ASGD-a (backups and MeanSquare on
the server) minus what the process had before the run was built, in weight vectors. A wide network and small batches
keep everything else small; a tiny run before it loads what torch loads late.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
from sidebyside import Row, main, sized
from subject import build_components, run

from runner.run_folder.machine import peak_memory_bytes

WORKERS = sized((4, 8), (2,))
WIDTHS = sized("[3072,3072,3072]", "[1024,1024,1024]")


def resident_bytes() -> int:
    """Resident memory of this process now, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmRSS")


def vectors(workers: int) -> float:
    """Make the run in this process and count."""
    data = ["dataset=synthetic", "dataset.train=64", "dataset.test=10", "run.batch_size=2", "run.threads=1"]
    common = ["algorithm=dc_asgd_a", f"cluster.workers={workers}", "model=mlp", "run.epochs=1", *data]
    run(build_components([*common, "model.widths=[8]"]))
    gc.collect()
    before = resident_bytes()
    given = build_components([*common, f"model.widths={WIDTHS}"])
    vector = 4 * given.oracle.replica.weights.numel()
    run(given)
    return (peak_memory_bytes() - before) / vector


def measure() -> list[Row]:
    """A fresh process for each number of workers, since a peak never falls."""
    rows = []
    for workers in WORKERS:
        what = f"weight vectors held by a simulation of {workers} workers"
        try:
            output = subprocess.run(
                [sys.executable, __file__, str(workers)], capture_output=True, text=True, check=True
            )
        except subprocess.CalledProcessError as error:
            rows.append(Row(what, workers + 6, [], note=error.stderr.strip().splitlines()[-1]))
            continue
        rows.append(
            Row(
                what,
                workers + 6,
                [float(output.stdout)],
                at_least=False,
                unit="vectors",
                note="at most M + 6 vectors for M workers",
            )
        )
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].isdigit():
        print(vectors(int(sys.argv[1])))
    else:
        main(measure)
