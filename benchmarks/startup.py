"""How long `dcrun --help` takes, beside an interpreter that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from sidebyside import Row, main

ROUNDS = 9


def seconds(*arguments: str) -> float:
    """Wall seconds of one Python process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def measure() -> list[Row]:
    """The first start of each, which may compile bytecode, does not count."""
    help_, nothing = ["-m", "runner.cli", "--help"], ["-c", "pass"]
    seconds(*help_)
    pairs = [(seconds(*nothing), seconds(*help_)) for _ in range(ROUNDS)]
    note = f"python -c pass: {statistics.median(pair[0] for pair in pairs):.2f} s"
    return [Row("dcrun --help", 1.0, [pair[1] for pair in pairs], at_least=False, unit="s", note=note)]


if __name__ == "__main__":
    main(measure)
