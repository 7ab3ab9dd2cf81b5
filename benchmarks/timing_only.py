"""How many events a second the clock alone handles, and in how much memory: `run.timing_only=true`, two minutes.

On a parameter server, with draws of two kinds, and in a collective, for 8, 1,000 and 10,000 workers; on shared memory
and in a pipeline for 8. An event is one worker's gradient, push or step. A side is a whole run of the clock in this
process, built before; the peak of memory is that of a process of its own, less that of one with a single worker, which
has imported and built the same.

Run it alone: `python benchmarks/timing_only.py [--json FILE]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sidebyside import Row, Side, in_turn, main, sized
from subject import build_components

from runner.train.executors import topology_of

ROOT = Path(__file__).resolve().parent.parent
TARGET = 100_000
"""Events a second, on one core."""
MEMORY = 200.0
"""MiB for 10,000 workers."""
WORKERS = sized((8, 1_000, 10_000), (8, 300))
EVENTS = sized(200_000, 2_000)
"""Of a side, about."""
ROUNDS, SECONDS = sized(3, 1), sized(5.0, 1.0)
NETWORK = ("cluster.network.latency=0.001", "cluster.network.bandwidth=1e9", "run.device=cpu", "run.timing_only=true")
MODEL = ("model=resnet20", "dataset=synthetic", "dataset.shape=[3,8,8]", "dataset.test=10")
GAMMA = "cluster.compute.distribution=gamma"
SIDES = {
    "parameter server": ("algorithm=dc_asgd_a",),
    "parameter server, gamma": ("algorithm=dc_asgd_a", GAMMA),
    "collective": ("algorithm=dasgd",),
}
FEW = {
    "shared memory": ("algorithm=hogwild",),
    "pipeline": ("algorithm=ddg",),
}
"""Topologies whose workers are few: cores of one machine, modules of one network."""


def setting(overrides: tuple[str, ...], workers: int) -> list[str]:
    """Return the overrides of a run of about `EVENTS` events; a sample a worker and step."""
    samples = 10 * workers
    epochs = max(1, EVENTS // samples)
    return [
        *overrides,
        *MODEL,
        *NETWORK,
        f"cluster.workers={workers}",
        f"dataset.train={samples}",
        "run.batch_size=1",
        f"run.epochs={epochs}",
        f"run.eval_every={epochs}",
    ]


def side(overrides: tuple[str, ...], workers: int) -> Side:
    """Return a side: events a second of wall time."""
    components = build_components(setting(overrides, workers))
    make = topology_of(type(components.method)).time

    def speed() -> float:
        run = make(components)
        begin = time.perf_counter()
        run.advance(components.cfg.run.epochs, sys.maxsize)
        return run.events / (time.perf_counter() - begin)

    return speed


def peak(overrides: tuple[str, ...], workers: int) -> float:
    """Return the peak of memory of a run in a process of its own, in MiB."""
    with tempfile.TemporaryDirectory(prefix="dcrun-bench-") as folder:
        command = [sys.executable, "-m", "runner.cli", "logger=none", f"hydra.run.dir={folder}/run"]
        given = [*command, *setting(overrides, workers)]
        subprocess.run(given, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return summary["peak_memory_bytes"] / 2**20


def measure() -> list[Row]:
    """All rows."""
    rows = []
    for name, overrides, workers in (
        *((name, given, workers) for name, given in SIDES.items() for workers in WORKERS),
        *((name, given, 8) for name, given in FEW.items()),
    ):
        (speeds,) = in_turn([side(overrides, workers)], rounds=ROUNDS, seconds=SECONDS)
        rows.append(Row(f"{name}, M={workers:,}, events/s", TARGET, speeds, unit="events/s"))
    for name in ("parameter server", "collective"):
        most = WORKERS[-1]
        more = peak(SIDES[name], most) - peak(SIDES[name], 1)
        rows.append(Row(f"{name}, M={most:,}, peak beyond one worker's", MEMORY, [more], at_least=False, unit="MiB"))
    return rows


if __name__ == "__main__":
    main(measure)
