"""Measures what keeping freed memory gains: runs with `runner.config.allocator` beside runs with glibc's settings.

Each run is a process of its own, ResNet-20 with batches of 128, and the two kinds take turns. How often glibc gives
memory back depends on where small objects happen to lie in its heap: the spread between runs is part of the result.

Run it alone, about five minutes: `python benchmarks/allocator.py [--json FILE]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sidebyside import Row, Side, in_turn, main, ratios, sized

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, SECONDS = sized(7, 1), 200.0
OWN = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
"""Leaves glibc as it is, and `runner.config.allocator` takes any setting for a wish to decide oneself."""
CIFAR = (
    "dataset=synthetic",
    "dataset.shape=[3,32,32]",
    f"dataset.train={sized(2560, 128)}",
    "dataset.test=10",
    "schedule.lr=0.01",
)
SUBJECTS = {
    "ResNet-20, CIFAR-shaped": ("model=resnet20", *CIFAR, "run.epochs=1"),
    "ResNet-20, digits": ("model=resnet20", f"run.epochs={sized(4, 0.1)}"),
}


def training(overrides: tuple[str, ...], settings: dict[str, str]) -> Side:
    """A run of its own; returns its samples/s."""

    def side() -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "runner.cli", "algorithm=sgd", "run.batch_size=128", "logger=none"]
            command += [*overrides, f"hydra.run.dir={folder}/run"]
            subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=True, stdout=subprocess.DEVNULL)
            return json.loads((Path(folder) / "run" / "summary.json").read_text())["samples_per_second"]

    return side


def measure() -> list[Row]:
    """Both subjects."""
    rows = []
    for name, overrides in list(SUBJECTS.items())[: sized(None, 1)]:
        sides = [training(overrides, {}), training(overrides, OWN)]
        kept, own = in_turn(sides, rounds=ROUNDS, seconds=SECONDS / len(SUBJECTS))
        note = f"{name}: {max(own):.0f} samples/s at best with glibc's settings, {max(kept):.0f} with memory kept"
        rows.append(Row(f"{name}: memory kept / glibc's settings", 1.0, ratios(kept, own), note=note))
    return rows


if __name__ == "__main__":
    main(measure)
