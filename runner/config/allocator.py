"""Memory that a step frees stays with the process, for the next step.

By default glibc gives memory back to the system as soon as some megabytes lie free at the end of its heap. A training
step frees all its activations, the next one asks for as many, and the system hands them out anew page by page, each
cleared first: ResNet-20 with batches of 128 took some 20,000 page faults a step, up to a seventh of its time
(`benchmarks/allocator.py`).
"""

from __future__ import annotations

import ctypes
import os

KEPT = 2**30
"""Bytes that may lie free at the end of the heap before some go back."""
LARGEST = 2**25
"""Bytes from which a tensor is mapped, and given back, by itself: the largest that glibc allows."""
SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
"""What sets glibc's allocator from outside; where one is given, it decides."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory; weights and other large vectors still go back at once.

    Returns:
        Whether it does: False without glibc, or where the environment sets its allocator.
    """
    if any(name in os.environ for name in SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: macOS, Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST) and mallopt(_M_TRIM_THRESHOLD, KEPT))
