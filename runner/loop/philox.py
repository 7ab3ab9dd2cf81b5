"""Philox 4x64-10 for thousands of draws at once: the first two numbers of many streams, each at its own counter.

A draw of the virtual clock is named by its place in Philox' counter (`runner.loop.clock`). NumPy's generator has to be
set to each of them anew, which takes five times as long as a simulated event may; here one call computes a block of
them. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", with the constants and the order of
words of NumPy's `Philox`, whose bits it has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_WHOLE = 2**64 - 1

AT_ONCE = 4096
"""Draws of a block: fewer are computed no faster, more would fall out of the cache."""
GROUP = 256
"""Workers of a block, at most."""
KEPT = 4
"""Blocks of a group of workers that are kept: workers of equal speed are never further apart."""


def _product(a: Words, multiplier: int) -> tuple[Words, Words]:
    """Return the upper and the lower 64 bits of a product."""
    low, high = np.uint64(multiplier & 0xFFFFFFFF), np.uint64(multiplier >> 32)
    a_low, a_high = a & _LOW, a >> _HALF
    # By halves, since NumPy has no integers of 128 bits; no sum here exceeds 64 bits.
    middle = a_high * low + (a_low * low >> _HALF)
    upper = a_high * high + (middle >> _HALF) + (a_low * high + (middle & _LOW) >> _HALF)
    return upper, a * np.uint64(multiplier)


def philox(key: Words, counter: tuple[Words, Words, Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Return the four words of the block at each counter.

    Args:
        key: (2,).
        counter: the counters' four words, the lowest first, each (n,).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = (int(word) for word in key)
    for number in range(ROUNDS):
        if number:
            k0, k1 = (k0 + _WEYL[0]) & _WHOLE, (k1 + _WEYL[1]) & _WHOLE
        upper0, lower0 = _product(c0, _MULTIPLIERS[0])
        upper1, lower1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = upper1 ^ c1 ^ np.uint64(k0), lower1, upper0 ^ c3 ^ np.uint64(k1), lower0
    return c0, c1, c2, c3


def _fractions(words: Words) -> Floats:
    """Return words as floats in [0, 1), as NumPy's generators make them of 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * (1.0 / 9007199254740992.0)


class BlockDraws:
    """A float for each task of each worker, computed in blocks of many tasks and workers.

    Args:
        key: of the generator, (2,).
        stream: which stream of the generator's draws.
        workers: number of workers M.
        convert: makes a draw's float of the first two numbers in [0, 1) of its stretch.
    """

    def __init__(self, key: Words, stream: int, workers: int, convert: Callable[[Floats, Floats], Floats]) -> None:
        self._key = key
        self._stream = stream
        self._workers = workers
        self._convert = convert
        self._group = min(workers, GROUP)
        # A power of two, so that a task's block and its place there are a shift and a mask.
        self._shift = (AT_ONCE // self._group).bit_length() - 1
        self._mask = (1 << self._shift) - 1
        groups = -(-workers // self._group)
        self._blocks: list[dict[int, Floats]] = [{} for _ in range(groups)]
        # By worker, the block that it asked for last, and that block's floats by task.
        self._last = [-1] * workers
        self._rows: list[list[float]] = [[] for _ in range(workers)]

    def at(self, worker: int, task: int) -> float:
        """Return the float of a worker's task."""
        block = task >> self._shift
        if self._last[worker] != block:
            group, place = divmod(worker, self._group)
            self._rows[worker] = self._block(group, block)[place].tolist()
            self._last[worker] = block
        return self._rows[worker][task & self._mask]

    def many_at(self, workers: Ints, tasks: Ints) -> Floats:
        """Return the floats of a task of each of some workers (n,)."""
        found = np.empty(len(workers))
        groups, places = np.divmod(workers, self._group)
        blocks, columns = tasks >> self._shift, tasks & self._mask
        # By group and block: workers that are about equally far share theirs.
        named = groups * (int(blocks.max(initial=0)) + 1) + blocks
        for name in np.unique(named).tolist():
            chosen = np.flatnonzero(named == name)
            first = chosen[0]
            floats = self._block(int(groups[first]), int(blocks[first]))
            found[chosen] = floats[places[chosen], columns[chosen]]
        return found

    def all_at(self, task: int) -> Floats:
        """Return the floats of a task of all workers (M,)."""
        block, place = task >> self._shift, task & self._mask
        return np.concatenate([self._block(group, block)[:, place] for group in range(len(self._blocks))])

    def _block(self, group: int, block: int) -> Floats:
        kept = self._blocks[group]
        if block not in kept:
            if len(kept) == KEPT:
                # The oldest: a worker that comes so late has it computed again, with the same bits.
                del kept[next(iter(kept))]
            kept[block] = self._compute(group, block)
        return kept[block]

    def _compute(self, group: int, block: int) -> Floats:
        """Return the floats of a block (workers of the group, tasks)."""
        low, tasks = group * self._group, 1 << self._shift
        workers = np.arange(low, min(low + self._group, self._workers), dtype=np.uint64)
        numbers = np.arange(block * tasks, (block + 1) * tasks, dtype=np.uint64)
        worker, task = (axis.ravel() for axis in np.meshgrid(workers, numbers, indexing="ij"))
        # 1, not 0: a generator that is set to a counter adds one before it computes its first block.
        first, stream = np.ones_like(worker), np.full_like(worker, self._stream)
        words = philox(self._key, (first, stream, worker, task))
        return self._convert(_fractions(words[0]), _fractions(words[1])).reshape(len(workers), tasks)
