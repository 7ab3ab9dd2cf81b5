"""Measures how well a fitted clock predicts a run: simulated / measured seconds per epoch, median of some recordings.

    python benchmarks/fit.py [--recordings 5]

Each recording is a run on processes; `dcrun-fit` is applied to it alone, and the printed arguments drive a simulation
of the same run, once with a fitted model of computing and once with the measured seconds themselves (`--delays`). The
aim is a difference within 15 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from injection import host
from rich.console import Console
from rich.table import Table
from sidebyside import sized

from runner.run_folder.trace import Trace
from runner.train.fit import delays_of, fit, overrides

COMMON = ("algorithm=asgd", f"run.epochs={sized(2, 1)}", "dataset=digits")
SETTINGS = {
    "resnet20, 4 workers on this machine": ("model=resnet20", "cluster.workers=4"),
    "mlp, 4 workers, gamma delays acted": (
        "model=mlp",
        "cluster.workers=4",
        "cluster.compute.seconds=0.05",
        "cluster.compute.distribution=gamma",
        "cluster.network.latency=0.005",
    ),
    "mlp, 4 workers, one slow, stragglers acted": (
        "model=mlp",
        "cluster.workers=4",
        "cluster.compute.seconds=0.02",
        "cluster.compute.speeds=[1,1,1,0.4]",
        "cluster.stragglers.probability=0.2",
        "cluster.stragglers.extra=[0,5]",
    ),
}
AIM = 0.15


def main() -> int:
    """Record, fit, simulate; the exit code is 1 if a median is further off than the aim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recordings", type=int, default=sized(5, 1))
    arguments = parser.parse_args()
    table = Table(title="simulated seconds per epoch, of a clock fitted to a recording")
    for column in ("run", "computing", "measured s", "simulated s", "ratio: median", "from", "to"):
        table.add_column(column, justify="left" if column in ("run", "computing") else "right")
    off = False
    with tempfile.TemporaryDirectory(prefix="dcrun-fit-") as name, host(Path(name)) as machine:
        for label, setting in SETTINGS.items():
            measured, simulated = list[float](), dict[str, list[float]]()
            for number in range(arguments.recordings):
                folder = Path(name) / f"{len(label)}-{number}"
                measured.append(_epoch_seconds(machine, folder, *setting, "cluster=processes"))
                model = next(item for item in setting if item.startswith("model="))
                for kind, fitted in _fitted(folder).items():
                    again = folder.with_name(f"{folder.name}-{kind.split()[0]}")
                    simulated.setdefault(kind, []).append(_epoch_seconds(machine, again, model, *fitted))
                told = ", ".join(f"{kind} {values[-1]:.3f} s" for kind, values in simulated.items())
                print(f"{label} {number + 1}: measured {measured[-1]:.3f} s, simulated: {told}", flush=True)
            for kind, values in simulated.items():
                ratios = [s / m for s, m in zip(values, measured, strict=True)]
                middle = statistics.median(ratios)
                off |= abs(middle - 1) > AIM
                seconds = (f"{statistics.median(each):.3f}" for each in (measured, values))
                table.add_row(label, kind, *seconds, f"{middle:.3f}", f"{min(ratios):.3f}", f"{max(ratios):.3f}")
    Console(width=120).print(table)
    return int(off)


def _epoch_seconds(machine: Any, folder: Path, *overrides: str) -> float:
    """Run to the end and return the seconds of an epoch, measured or virtual."""
    run = machine.start(folder, *COMMON, *overrides)
    if run.end() != 0:
        raise RuntimeError(run.log)
    return run.summary["seconds"] / run.summary["epochs"]


def _fitted(folder: Path) -> dict[str, list[str]]:
    """Return the arguments of both kinds of clocks that a recording gives."""
    trace, measured = Trace.read(str(folder)), folder / "measured.csv"
    measured.write_text(delays_of(trace))
    return {"fitted model": overrides(fit([trace])), "measured seconds": overrides(fit([trace], str(measured)))}


if __name__ == "__main__":
    sys.exit(main())
