"""Derives every stream of random numbers of a run from the run's seed and a name.

No two streams share a generator, so it does not matter who draws first.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for the stream named by `parts`, for example `derive(seed, "permutation", epoch)`."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
