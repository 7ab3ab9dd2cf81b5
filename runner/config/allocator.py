"""Makes the process keep the memory that a training step frees, for the next step.

By default glibc gives memory back to the system as soon as some megabytes are free at the end of its heap. A training
step frees all its activations, and the next step asks for as many. The system then hands out the pages again one by
one, and clears each first: ResNet-20 with batches of 128 took some 20,000 page faults a step, up to a seventh of its
time (`benchmarks/allocator.py`).
"""

from __future__ import annotations

import ctypes
import os

KEPT = 2**30
"""Bytes that may be free at the end of the heap before glibc gives some back."""
LARGEST = 2**25
"""Bytes from which glibc maps a tensor by itself, and gives it back when it is freed: the largest value allowed."""
SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
"""Environment variables of glibc's allocator; if one is set, the user has decided and nothing is changed."""

# From glibc's malloc.h; Python has no names for them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory; weights and other large vectors are still given back at once.

    Returns:
        Whether glibc does so: False without glibc, or if the environment sets its allocator.
    """
    if any(name in os.environ for name in SETTINGS):
        return False
    try:
        # None opens the running program itself, which has the C library linked in. musl has no `mallopt`.
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: macOS, Windows
        return False
    # Setting either turns off glibc's own adjustment of both, so both must be set: else large tensors would
    # be mapped and cleared anew in each step.
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST) and mallopt(_M_TRIM_THRESHOLD, KEPT))
