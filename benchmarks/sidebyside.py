"""What every benchmark here shares: two sides measured in turn, and rows that say whether a target is reached.

The machine may be shared and its clock may drift, so a speed alone means little. Both sides of a ratio run in turn
(A B A B …) in one process, each round gives one ratio, and the median of those counts.

With `DCRUN_BENCHMARK_SCALE=small` every benchmark makes one short round of small problems: this shows in seconds that
the benchmark still runs, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

Side = Callable[[], float]
"""Runs one side for a while and returns its speed, larger is better."""
SCALE = "DCRUN_BENCHMARK_SCALE"
T = TypeVar("T")


def small() -> bool:
    """Return whether the environment asks for the small scale; end with exit code 2 if it asks for none there is."""
    scale = os.environ.get(SCALE, "full")
    if scale not in ("full", "small"):
        print(f"{SCALE}={scale}: is not a scale; allowed: full, small", file=sys.stderr)
        sys.exit(2)
    return scale == "small"


def sized(full: T, little: T) -> T:
    """Return the value for the scale that the environment asks for."""
    return little if small() else full


@dataclass
class Row:
    """One result.

    Attributes:
        what: what was measured, and relative to what.
        target: what it has to be.
        values: one for each round; the median counts.
        at_least: whether the target is a lower bound, else an upper one.
        unit: of values and target; "x" is a ratio.
        note: more to know: the speed behind a ratio, or why nothing could be measured.
    """

    what: str
    target: float
    values: list[float]
    at_least: bool = True
    unit: str = "x"
    note: str = ""
    value: float | None = field(init=False)
    reached: bool | None = field(init=False)

    def __post_init__(self) -> None:
        self.value = statistics.median(self.values) if self.values else None
        if self.value is None:
            self.reached = None
        else:
            self.reached = self.value >= self.target if self.at_least else self.value <= self.target


def in_turn(
    sides: Sequence[Side], *, rounds: int, seconds: float, warm: bool = False, least: int = 3
) -> list[list[float]]:
    """Run all sides once unmeasured, then in turn; returns the speeds of each side.

    Args:
        sides: what to compare.
        rounds: how often each is run, at most.
        seconds: after that long no further round begins, if there have been `least`.
        warm: each was run unmeasured before.
        least: rounds that are made however long they take.
    """
    for side in () if warm or small() else sides:
        side()
    speeds: list[list[float]] = [[] for _ in sides]
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= least and time.perf_counter() - begin > seconds:
            break
        for side, found in zip(sides, speeds, strict=True):
            found.append(side())
    return speeds


def pace(
    work: Callable[[], object], amount: float, *, repeats: int = 3, finish: Callable[[], object] = lambda: None
) -> Side:
    """How much of something is done per second.

    Args:
        work: does it.
        amount: how much that is, as bytes that must move.
        repeats: how often, at a time.
        finish: waits until what was begun is done, as on a GPU.
    """

    def side() -> float:
        finish()
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        finish()
        return repeats * amount / (time.perf_counter() - begin)

    return side


def ratios(speeds: Sequence[float], base: Sequence[float]) -> list[float]:
    """The ratio of two sides in each round."""
    return [a / b for a, b in zip(speeds, base, strict=True)]


def show(rows: Sequence[Row], console: Console) -> None:
    """Print rows as a table, and their notes below it."""
    table = Table(show_edge=False)
    for name in ("what", "median", "target", "reached", "min - max", "rounds"):
        table.add_column(name, justify="right" if name in ("median", "min - max", "rounds") else "left")
    for row in rows:
        if row.value is None:
            table.add_row(row.what, "-", f"{row.target:g}", "not measured", "", "0")
            continue
        bound = "≥" if row.at_least else "≤"
        reached = "[green]yes[/]" if row.reached else "[red]no[/]"
        spread = f"{min(row.values):.2f} - {max(row.values):.2f}"
        unit = "" if row.unit == "vectors" else f" {row.unit}"
        table.add_row(
            row.what, f"{row.value:.2f}{unit}", f"{bound} {row.target:g}", reached, spread, str(len(row.values))
        )
    console.print(table)
    for note in dict.fromkeys(row.note for row in rows if row.note):
        console.print(f"  [dim]{note}[/]", soft_wrap=True, highlight=False)


def main(measure: Callable[[], list[Row]]) -> None:
    """The command line of a single benchmark: measure, then print the table or write it to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="write the rows to this file instead of printing a table")
    path = parser.parse_args().json
    rows = measure()
    if path is None:
        show(rows, Console())
        if small():
            print("small scale: this shows that the benchmark runs, its figures say nothing")
    else:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=2, allow_nan=False) + "\n")
