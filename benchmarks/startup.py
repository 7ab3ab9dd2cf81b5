"""Measures what a command takes besides its work: `dcrun --help`, a run up to its first bar, and its end."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sidebyside import Row, main, sized

ROUNDS = sized(9, 1)
RUN = ("algorithm=asgd", "cluster.workers=4", "model=mlp", "dataset=digits", "run.epochs=1")
# Both say how much processor time their process has taken so far, which other programs change little.
TORCH = "import time, torch; print(time.process_time())"
TO_THE_BAR = """
import os, time
from runner.cli.main import main
from runner.run_folder.progress import Progress

def shown(self, *given, start=Progress.start):
    start(self, *given)
    print(time.process_time(), flush=True)
    os._exit(0)

Progress.start = shown
main()
"""


def seconds(*arguments: str) -> float:
    """Wall seconds of one Python process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def told(*arguments: str) -> float:
    """Return the number that a Python process prints last."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def end_seconds(*overrides: str) -> float:
    """Wall seconds from the last line of a run to the end of its process."""
    last = 0.0
    command = [sys.executable, "-m", "runner.cli", *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Not by lines, which would be read ahead.
        while process.stdout.read1():  # type: ignore[attr-defined]
            last = time.perf_counter()
    return time.perf_counter() - last


def of_help() -> Row:
    """Return the row of the help text."""
    help_, nothing = ["-m", "runner.cli", "--help"], ["-c", "pass"]
    seconds(*help_)
    idle, values, cpu = [], [], []
    for _ in range(ROUNDS):
        idle.append(seconds(*nothing))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        values.append(seconds(*help_))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    note = f"dcrun --help: {statistics.median(cpu):.2f} s of processor time"
    note += f"; python -c pass: {statistics.median(idle):.2f} s"
    return Row("dcrun --help", 1.0, values, at_least=False, unit="s", note=note)


def of_a_run(folder: Path) -> list[Row]:
    """Return the rows of a run's start and end."""
    numbers = iter(range(10**6))

    def run(*own: str) -> list[str]:
        return [*RUN, *own, f"hydra.run.dir={folder / str(next(numbers))}"]

    told("-c", TO_THE_BAR, *run())
    torch, bar, ends = [], [], []
    for _ in range(ROUNDS):
        torch.append(told("-c", TORCH))
        bar.append(told("-c", TO_THE_BAR, *run()))
        # Without wandb, whose own end is waited for before the last line.
        ends.append(end_seconds(*run("logger=none")))
    note = f"processor time to the first bar: {statistics.median(bar):.2f} s"
    note += f", of an import of torch: {statistics.median(torch):.2f} s"
    to_the_bar = [b / t for b, t in zip(bar, torch, strict=True)]
    return [
        Row("processor time of a run to its first bar / import torch", 1.5, to_the_bar, at_least=False, note=note),
        Row("a run's end after its last line", 0.2, ends, at_least=False, unit="s"),
    ]


def measure() -> list[Row]:
    """Measure all; first starts, which may compile bytecode, do not count."""
    with tempfile.TemporaryDirectory(prefix="dcrun-startup-") as name:
        return [of_help(), *of_a_run(Path(name))]


if __name__ == "__main__":
    main(measure)
