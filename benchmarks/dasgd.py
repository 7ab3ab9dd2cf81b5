"""Does delayed averaging hide a slow network? Compares throughput with workers that never communicate: four minutes.

The network is slowed to t_c = 0.8 d t_p, so that a delay of d steps hides it (DaSGD, section 3.3), once on the virtual
clock with eight workers, once on two real processes, which sleep t_c in the thread that communicates; t_p is the time
of a step of workers that never communicate, in the same round. Mini-batch SGD waits for every step's t_c and has to
fall to t_p / (t_p + t_c) = 1 / 1.8. It also merges an average into 25 million weights, in bytes per second beside a
plain copy.

Run it alone: `python benchmarks/dasgd.py [--json FILE]`. On two busy cores the rows of processes say little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sidebyside import Row, in_turn, main, pace, ratios, sized

from algorithms.base import Step
from algorithms.dasgd import DaSGD

ROOT = Path(__file__).resolve().parent.parent
SLOW = 0.8
"""t_c / (d t_p)."""
WEIGHTS = sized(25_000_000, 1_000_000)
ROUNDS = sized(3, 1)
DELAYS = sized((1, 2), (1,))
"""d of the simulated runs."""
NEVER = 1_000_000
"""A period that no run comes to the end of."""
SIMULATED = (
    *(
        "model=linear",
        f"dataset.limit_train={sized(1280, 320)}",
        "run.batch_size=4",
        "run.epochs=4",
        "run.eval_every=4",
    ),
    *("cluster.workers=8", "cluster.network.allreduce=linear"),
)
ACTED = (
    *(
        "model=mlp",
        f"dataset.limit_train={sized(256, 64)}",
        "dataset.limit_test=50",
        "run.batch_size=4",
        "run.epochs=2",
    ),
    *("run.eval_every=2", "cluster=processes", "cluster.workers=2", "cluster.network.allreduce=linear"),
    *("cluster.compute.seconds=0.05", "cluster.compute.distribution=constant"),
)
"""Steps that are mostly slept, which a busy machine disturbs less."""
COMPUTING = (
    *("model=resnet20", "dataset=synthetic", "dataset.shape=[3,32,32]", "dataset.train=2048"),
    *("dataset.test=64", "run.batch_size=32", "run.epochs=1", "run.eval_every=1", "run.device=cpu"),
    *("cluster=processes", "cluster.workers=2", "cluster.network.allreduce=linear"),
)
SLEPT = ("2 processes, steps of 50 ms", ACTED)
PROCESSES = sized((SLEPT, ("2 processes, resnet20", COMPUTING)), (SLEPT,))


def run(*overrides: str) -> float:
    """Train in a process of its own; returns seconds per step, virtual or measured, without evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "runner.cli", "logger=none", "run.threads=1", f"hydra.run.dir={folder}/run"]
        subprocess.run([*command, *overrides], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return summary["seconds"] / summary["updates"]


def hiding(name: str, setting: tuple[str, ...], delay: int, rounds: int, target: float) -> list[Row]:
    """DaSGD and mini-batch SGD on a slow network, relative to no communication at all."""
    hides, falls, notes = [], [], []
    for _ in range(rounds):
        alone = run(*setting, "algorithm=dasgd", f"algorithm.tau={NEVER}")
        slow = f"cluster.network.latency={SLOW * delay * alone}"
        late = run(*setting, "algorithm=dasgd", "algorithm.tau=4", f"algorithm.delay={delay}", slow)
        waits = run(*setting, "algorithm=ssgd", f"cluster.network.latency={SLOW * alone}")
        hides.append(alone / late)
        falls.append(alone / waits * (1 + SLOW))
        notes.append(f"{1e3 * alone:.1f}")
    note = f"t_p {', '.join(notes)} ms"
    return [
        Row(f"dasgd, d={delay}, t_c = 0.8 d t_p, {name} / never talking", target, hides, note=note),
        Row(f"ssgd, t_c = 0.8 t_p, {name} / 1/1.8 of never talking", 0.9, falls, note="the model is 1"),
        Row(f"ssgd, t_c = 0.8 t_p, {name} / 1/1.8 of never talking", 1.1, falls, at_least=False),
    ]


def merging() -> list[Row]:
    """Eq. 4's merge on 25 million weights: reads both vectors and writes one."""
    generator = torch.Generator().manual_seed(0)
    a, b, mean = (torch.randn(WEIGHTS, generator=generator) for _ in range(3))
    method = DaSGD(xi=0.25)
    method.start(torch.randn(WEIGHTS, generator=generator), 0, 2)
    step = Step(lr=0.1)

    vector = 4 * WEIGHTS
    sides = [pace(lambda: b.copy_(a), 2 * vector), pace(lambda: method.apply({"x": mean}, step), 3 * vector)]
    copy, merge = in_turn(sides, rounds=sized(30, 1), seconds=20.0)
    note = f"copy {max(copy) / 1e9:.0f} GB/s at best"
    return [Row("averaging step on 25 M weights, bytes/s / copy", 0.8, ratios(merge, copy), note=note)]


def measure() -> list[Row]:
    """All rows."""
    constant = "cluster.compute.distribution=constant"
    return [
        *merging(),
        *(row for d in DELAYS for row in hiding("simulated, constant times", (*SIMULATED, constant), d, 1, 0.99)),
        *(row for name, setting in PROCESSES for row in hiding(name, setting, 1, ROUNDS, 0.9)),
    ]


if __name__ == "__main__":
    main(measure)
