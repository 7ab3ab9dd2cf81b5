"""Measures how fast single operators read memory, which shows why a push made of operators is slower than one pass.

    .venv/bin/python benchmarks/reads.py     # run alone, under a minute; OMP_NUM_THREADS=1 for one thread

The operators of a server update run block by block over 25.6 million weights, as in `updates.py`; what they write goes
to a block that stays in the cache, except the in-place ones. It counts the bytes read from and written to memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import torch
from rich.console import Console
from rich.table import Table
from sidebyside import in_turn, pace, ratios, sized
from torch import Tensor

from algorithms.blockwise import BLOCK

WEIGHTS = sized(25_600_000, 1_000_000)


def block_by_block(rule: Callable[..., object], *vectors: Tensor) -> Callable[[], None]:
    """Return what runs a rule over vectors, as `rule(*slices, scratch)`."""
    block = BLOCK * torch.get_num_threads()
    scratch = torch.empty(block)

    def work() -> None:
        for slices in zip(*(vector.split(block) for vector in vectors), strict=True):
            rule(*slices, scratch[: len(slices[0])])

    return work


def main() -> None:
    """Measure in turn and print."""
    w, g, bak, ms = torch.rand(4, WEIGHTS)
    operators = {
        "mul(g, g, out=block)": (4, block_by_block(lambda g, s: torch.mul(g, g, out=s), g)),
        "sub(w, bak, out=block)": (8, block_by_block(lambda w, bak, s: torch.sub(w, bak, out=s), w, bak)),
        "ms.lerp_(block)": (8, block_by_block(lambda ms, s: ms.lerp_(s, 0.05), ms)),
        "w.add_(block)": (8, block_by_block(lambda w, s: w.add_(s, alpha=-1e-9), w)),
    }
    sides = [pace(work, amount * WEIGHTS) for amount, work in operators.values()]
    copy, *found = in_turn([pace(lambda: bak.copy_(g), 8 * WEIGHTS), *sides], rounds=sized(15, 1), seconds=40.0)
    table = Table("operator", "GB/s", "ns a weight", "of a copy", show_edge=False)
    table.add_row("copy", f"{statistics.median(copy) / 1e9:.1f}", f"{8e9 / statistics.median(copy):.2f}", "1.00")
    for (name, (amount, _)), speeds in zip(operators.items(), found, strict=True):
        speed = statistics.median(speeds)
        share = statistics.median(ratios(speeds, copy))
        table.add_row(name, f"{speed / 1e9:.1f}", f"{amount * 1e9 / speed:.2f}", f"{share:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{torch.get_num_threads()} threads, {len(copy)} rounds, medians")


if __name__ == "__main__":
    main()
