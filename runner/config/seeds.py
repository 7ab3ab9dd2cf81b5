"""Derives every stream of random numbers of a run from the run's seed and a name.

No two streams share a generator, so it does not matter who draws first.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for the stream named by `parts`, for example `derive(seed, "permutation", epoch)`."""
    # With a separator: seed 1, part 23 would else be the stream of seed 12, part 3. A hash, since Python's own differs
    # between processes, and neighbouring seeds give correlated streams in some generators.
    text = "/".join(str(part) for part in (seed, *parts))
    # 63 bits fit a signed 64-bit integer, which every generator takes.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
