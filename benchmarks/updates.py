"""Server updates on 25.6 million weights (as many as ResNet-50 has): bytes per second, relative to a plain copy's.

The bytes that must move: a copy reads and writes a vector; DC-ASGD-c reads w, g and w_bak and writes w (4 vectors),
DC-ASGD-a also reads and writes MeanSquare (6 vectors). Scratch that stays in a cache costs nothing here; a temporary
that does not shows as a lower ratio. A fused update can beat a copy, whose target is first read into the cache too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import runner  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import torch
from sidebyside import Row, Side, in_turn, main, ratios

from algorithms.base import ParameterServer, Step
from algorithms.dc_asgd import DCASGDAdaptive, DCASGDConstant

WEIGHTS = 25_600_000
VECTOR = 4 * WEIGHTS
REPEATS = 3
ROUNDS, SECONDS = 60, 50.0


def speed(work: Callable[[], object], vectors: int) -> Side:
    """Bytes per second of something that moves so many vectors."""

    def side() -> float:
        begin = time.perf_counter()
        for _ in range(REPEATS):
            work()
        return REPEATS * vectors * VECTOR / (time.perf_counter() - begin)

    return side


def push(method: ParameterServer, compiled: bool, g: torch.Tensor) -> Callable[[], None]:
    """A push by one of two workers, with a learning rate that is new each time, as under a warm-up."""
    method.start(torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(1)), 2, compiled)
    method.pull(1)
    lr = 1e-6

    def work() -> None:
        nonlocal lr
        lr *= 1.0001
        method.push(1, {"g": g}, Step(lr=lr))

    return work


def measure() -> list[Row]:
    """Both forms, block by block and compiled, each beside the copy."""
    a, b = torch.randn(2, WEIGHTS, generator=torch.Generator().manual_seed(0))
    g = 1e-2 * torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(2))
    copy = speed(lambda: b.copy_(a), 2)
    rows = []
    for compiled, targets in ((False, (0.85, 0.65)), (True, (1.3, 1.3))):
        mode = "compiled" if compiled else "uncompiled"
        constant, adaptive = DCASGDConstant(lambda0=0.04), DCASGDAdaptive(lambda0=2.0, m=0.95)
        try:
            sides = [speed(push(constant, compiled, g), 4), speed(push(adaptive, compiled, g), 6)]
            base, c, again, d = in_turn([copy, sides[0], copy, sides[1]], rounds=ROUNDS, seconds=SECONDS)
        except RuntimeError as error:  # torch.compile needs a C++ compiler
            note = str(error).strip().splitlines()[0]
            rows += [Row(f"dc_asgd_{form} push, {mode} / copy", 1.3, [], note=note) for form in "ca"]
            continue
        note = f"copy beside the {mode} updates: {max(base + again) / 1e9:.0f} GB/s at best"
        rows.append(Row(f"dc_asgd_c push, {mode} / copy", targets[0], ratios(c, base), note=note))
        rows.append(Row(f"dc_asgd_a push, {mode} / copy", targets[1], ratios(d, again), note=note))
    return rows


if __name__ == "__main__":
    main(measure)
