"""How long a call takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

TIMED = 7
"""Calls that are timed; the median counts, which a single interruption does not move."""
UNTIMED = 2
"""Calls before them, in which caches fill and kernels are chosen."""


def median_seconds(
    call: Callable[[], object], device: torch.device | None = None, before: Callable[[], object] = lambda: None
) -> float:
    """Return the median seconds of a call.

    Args:
        call: what is timed.
        device: the device that it gives work to; the time until that is done counts. None for the CPU.
        before: called before each call, and not timed.
    """
    times = []
    for _ in range(UNTIMED + TIMED):
        # Outside the clock: what has to be set up anew for each call is no part of it.
        before()
        begin = time.perf_counter()
        call()
        if device is not None and device.type == "cuda":
            # The call returns when the work is queued, not when it is done.
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[UNTIMED:])
