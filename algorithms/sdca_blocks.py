"""SDCA's steps on a quadratic loss in CPU memory, where samples have few features: the same systems, in less time.

`algorithms.cocoa_plus.blocked_steps` says which equations these are. On 64 numbers an operator of PyTorch costs several
times what it computes, so all is NumPy's and BLAS's here. It rounds differently, in the last bits of float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.linalg.blas import dgemv, dsyrk, dtrsv  # pyright: ignore[reportAttributeAccessIssue] (SciPy makes them when imported)
from torch import Tensor

BLOCK = 128
"""Most samples of a block: its costs grow with its square."""
FEATURES = 64
"""Most features of a sample. On more, BLAS would begin to use threads, of which `run.threads` knows nothing."""
ALONE = 237_184
"""Most n(n + 1)d of a block of n samples: OpenBLAS was seen to use a second thread for `dsyrk` from twice as much."""


def is_narrow(x: Any) -> bool:
    """Return whether `narrow_steps` can take steps on these samples."""
    return isinstance(x, Tensor) and x.is_cpu and x.shape[0] > 0 and 0 < x.shape[1] <= FEATURES


def narrow_steps(x: Tensor, drawn: Tensor | None, residue: Tensor, coupling: float) -> tuple[Tensor, Tensor]:
    """Do what `blocked_steps` does; arguments and results are its own."""
    samples, kappas, places = x.numpy(), residue.numpy(), None if drawn is None else drawn.numpy()
    if places is not None:
        samples, kappas = samples.take(places, 0), kappas.take(places)
    rows, deltas = samples.astype(np.float64), -kappas.astype(np.float64)
    change, u = np.zeros(len(residue)), np.zeros(x.shape[1])
    size = block_size(*rows.shape)
    repeated = [] if places is None else _repeated(places, size)
    room = np.zeros((size, size), order="F")
    for number, begin in enumerate(range(0, len(rows), size)):
        # BLAS counts by columns, so that a matrix by rows is its transpose.
        columns, delta = rows[begin : begin + size].T, deltas[begin : begin + size]
        n = len(delta)
        # The lower triangle alone is computed, and read below: what the other holds does not matter.
        system = room if n == size else np.zeros((n, n), order="F")
        dsyrk(coupling, columns, beta=0, c=system, trans=1, lower=1, overwrite_c=1)
        if begin:
            # −κ at the weights that the blocks before have left
            dgemv(-coupling, columns, u, beta=1, y=delta, trans=1, overwrite_y=1)
        by_rows = system.T  # the same memory, in the order in which NumPy passes through it fastest
        again = None if places is None else places[begin : begin + size]
        if again is None or not repeated[number]:
            by_rows.reshape(-1)[:: n + 1] += 1
        else:
            by_rows += again[:, None] == again
        if again is not None:
            delta -= change[again]
        # In place: `deltas` has all steps in the end.
        dtrsv(system, delta, lower=1, overwrite_x=1)
        if again is not None:
            np.add.at(change, again, delta)
        dgemv(1.0, columns, delta, beta=1, y=u, overwrite_y=1)
    return torch.from_numpy(deltas if places is None else change), torch.from_numpy(u)


def _repeated(places: Any, size: int) -> list[bool]:
    """Return of each block whether a sample may come twice: to compare each with each takes several times as long."""
    whole = places[: len(places) // size * size].reshape(-1, size)
    ascending = np.sort(whole, axis=1)
    return [*(ascending[:, 1:] == ascending[:, :-1]).any(1).tolist(), True]


def block_size(steps: int, features: int) -> int:
    """Return how many samples each block but the last has: as few as give the fewest blocks."""
    most = min(BLOCK, (math.isqrt(4 * ALONE // features + 1) - 1) // 2)  # the largest n with n(n + 1)d <= ALONE
    return -(-steps // -(-steps // most))
