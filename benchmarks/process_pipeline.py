"""What does decoupling gain on real processes? Compares the seconds of an iteration of DDG and FR with BP's.

ResNet-20 and ResNet-56 of the thesis' kind (basic blocks) on images of CIFAR's shape, cut into two modules on two
processes with one thread each; batches of 32 and 128. Locked modules take turns: with equal modules a decoupled
iteration takes (T_F + T_B/2) / (T_F + T_B) of a locked one if forward passes follow each other (thesis, table 3). It
takes half of a locked one if module 1 computes the forward pass of the next batch meanwhile, as here; FR's first module
replays a forward pass, a third more. The cost of cutting is measured too: BP in two modules beside BP in one process.

Run it alone, with two idle cores: `python benchmarks/process_pipeline.py [--json FILE]`; twenty minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from sidebyside import Row, main, sized

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = sized(3, 1)
ITERATIONS = sized(16, 4)
SETTINGS = sized((("resnet20", 32), ("resnet20", 128), ("resnet56", 32), ("resnet56", 128)), ())
SLEPT = sized(("resnet20", 8, 0.3), ("resnet8", 8, 0.1))
"""What a busy machine disturbs less: whether modules really compute at the same time shows here too."""


def run(model: str, batch: int, *overrides: str) -> float:
    """Train in processes of its own; returns measured seconds an iteration, without evaluation."""
    setting = (
        *(f"model={model}", "dataset=synthetic", "dataset.shape=[3,32,32]", f"dataset.train={ITERATIONS * batch}"),
        *("dataset.test=64", f"run.batch_size={batch}", "run.epochs=1", "run.eval_every=1", "run.device=cpu"),
        *("run.threads=1", "logger=none", "cluster=processes"),
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "runner.cli", f"hydra.run.dir={folder}/run", *setting, *overrides]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return summary["seconds"] / summary["updates"]


def beside(model: str, batch: int, slept: float | None = None) -> list[Row]:
    """All sides of one setting, in turn.

    Args:
        model: the network.
        batch: samples of a batch.
        slept: seconds that a gradient takes; so much longer than it needs that most of it is slept.
    """
    acted = () if slept is None else (f"cluster.compute.seconds={slept}", "cluster.compute.distribution=constant")
    how = "" if slept is None else f", steps of {slept:g} s, mostly slept"
    sides = {
        "one": ("algorithm=bp", "cluster.workers=1"),
        "bp": ("algorithm=bp", "cluster.workers=2"),
        "ddg": ("algorithm=ddg", "cluster.workers=2"),
        "fr": ("algorithm=fr", "cluster.workers=2"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, overrides in sides.items():
            seconds[name].append(run(model, batch, *overrides, *acted))

    def row(name: str, base: str, target: float, what: str) -> Row:
        values = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
        note = f"{base} {', '.join(f'{1e3 * value:.0f}' for value in seconds[base])} ms"
        return Row(f"{what}, {model}, batch {batch}{how}", target, values, at_least=False, note=note)

    return [
        row("bp", "one", 1.1, "bp on two processes / on one"),
        row("ddg", "bp", 2 / 3, "ddg / bp, seconds an iteration"),
        row("fr", "bp", 5 / 6, "fr / bp, seconds an iteration"),
    ]


def measure() -> list[Row]:
    """All rows."""
    return [*beside(*SLEPT), *(row for model, batch in SETTINGS for row in beside(model, batch))]


if __name__ == "__main__":
    main(measure)
