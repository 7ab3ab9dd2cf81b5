"""Measures how long `dcrun --help` takes, beside an interpreter that does nothing."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

from sidebyside import Row, main, sized

ROUNDS = sized(9, 1)


def seconds(*arguments: str) -> float:
    """Wall seconds of one Python process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def measure() -> list[Row]:
    """The first start, which may compile bytecode, does not count."""
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
    return [Row("dcrun --help", 1.0, values, at_least=False, unit="s", note=note)]


if __name__ == "__main__":
    main(measure)
