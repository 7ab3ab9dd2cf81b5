"""Measures server updates on 25.6 million weights (as many as ResNet-50 has): bytes per second, relative to a copy.

The bytes that must move: a copy reads and writes a vector; DC-ASGD-c reads w, g and w_bak and writes w (4 vectors),
DC-ASGD-a also reads and writes MeanSquare (6 vectors). Scratch that stays in a cache costs nothing here; a temporary
that does not shows as a lower ratio. A fused update can beat a copy, whose target is first read into the cache too.

For uncompiled updates the ceiling is measured too: the same operators on as many weights, but always the same block of
them, which stays in a core's cache (1.5 MB a core with its scratch). No memory could make a push faster than that.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import torch
from sidebyside import Row, in_turn, main, pace, ratios, sized

from algorithms.base import ParameterServer, Step
from algorithms.blockwise import BLOCK
from algorithms.dc_asgd import DCASGD, DCASGDAdaptive, DCASGDConstant

WEIGHTS = sized(25_600_000, 1_000_000)
VECTOR = 4 * WEIGHTS
ROUNDS, SECONDS = sized(60, 1), 50.0


def push(method: ParameterServer, compiled: bool, g: torch.Tensor) -> Callable[[], None]:
    """A push by one of two workers, with a learning rate that is new each time, as under a warm-up."""
    method.start(torch.randn(len(g), generator=torch.Generator().manual_seed(1)), 2, compiled)
    method.pull(1)
    lr = 1e-6

    def work() -> None:
        nonlocal lr
        lr *= 1.0001
        method.push(1, {"g": g}, Step(lr=lr))

    return work


def resident(method: DCASGD, g: torch.Tensor) -> Callable[[], None]:
    """The operators of a push, as often as there are whole blocks, on one block and its scratch."""
    block = BLOCK * torch.get_num_threads()
    g = g[:block].clone()
    method.start(torch.randn(block, generator=torch.Generator().manual_seed(1)), 2)
    slices = [method.w, g, *method.operands(1, {"g": g}), None, *torch.empty(2, block)]

    def work() -> None:
        for _ in range(WEIGHTS // block):
            method.update(*slices, lr=1e-6, lambda_t=method.lambda0)

    return work


def ceiling(operators: list[float], copy: list[float]) -> str:
    """What the operators alone could reach."""
    share = statistics.median(ratios(operators, copy))
    return f"the operators alone, on weights that stay in the cache: {share:.2f} at best"


def measure() -> list[Row]:
    """Both forms, block by block and compiled, each beside the copy."""
    a, b = torch.randn(2, WEIGHTS, generator=torch.Generator().manual_seed(0))
    g = 1e-2 * torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(2))
    copy = pace(lambda: b.copy_(a), 2 * VECTOR)
    rows = []
    for compiled, targets in ((False, (0.85, 0.65)), (True, (1.3, 1.3))):
        mode = "compiled" if compiled else "uncompiled"
        constant, adaptive = DCASGDConstant(lambda0=0.04), DCASGDAdaptive(lambda0=2.0, m=0.95)
        try:
            sides = [pace(push(constant, compiled, g), 4 * VECTOR), pace(push(adaptive, compiled, g), 6 * VECTOR)]
            if not compiled:
                blocks = 4 * (WEIGHTS - WEIGHTS % (BLOCK * torch.get_num_threads()))
                sides.append(pace(resident(DCASGDConstant(lambda0=0.04), g), 4 * blocks))
                sides.append(pace(resident(DCASGDAdaptive(lambda0=2.0, m=0.95), g), 6 * blocks))
            base, c, again, d, *alone = in_turn(
                [copy, sides[0], copy, sides[1], *sides[2:]], rounds=ROUNDS, seconds=SECONDS
            )
        except RuntimeError as error:  # torch.compile needs a C++ compiler
            note = str(error).strip().splitlines()[0]
            rows += [Row(f"dc_asgd_{form} push, {mode} / copy", 1.3, [], note=note) for form in "ca"]
            continue
        note = f"copy beside the {mode} updates: {max(base + again) / 1e9:.0f} GB/s at best"
        notes = [f"{note}; {ceiling(*pair)}" for pair in zip(alone, (base, again), strict=False)] or [note, note]
        rows.append(Row(f"dc_asgd_c push, {mode} / copy", targets[0], ratios(c, base), note=notes[0]))
        rows.append(Row(f"dc_asgd_a push, {mode} / copy", targets[1], ratios(d, again), note=notes[1]))
    return rows


if __name__ == "__main__":
    main(measure)
