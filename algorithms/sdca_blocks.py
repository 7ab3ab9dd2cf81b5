"""SDCA's steps on a quadratic loss in CPU memory, where samples have few features: the same systems, in less time.

`algorithms.cocoa_plus.blocked_steps` says which equations these are. On 64 numbers an operator of PyTorch costs several
times what it computes, so all is NumPy's and BLAS's here. It rounds differently, in the last bits of float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.linalg.blas import dtrsv  # pyright: ignore[reportAttributeAccessIssue] (SciPy makes it when imported)
from torch import Tensor

BLOCK = 64
"""Most samples of a block."""
FEATURES = 64
"""Most features of a sample. On more, NumPy's BLAS would begin to use threads, of which `run.threads` knows nothing."""


def is_narrow(x: Any) -> bool:
    """Return whether `narrow_steps` can take steps on these samples."""
    return isinstance(x, Tensor) and x.is_cpu and x.shape[0] > 0 and x.shape[1] <= FEATURES


def narrow_steps(x: Tensor, drawn: Tensor | None, residue: Tensor, coupling: float) -> tuple[Tensor, Tensor]:
    """Do what `blocked_steps` does; arguments and results are its own."""
    samples, kappas, places = x.numpy(), residue.numpy(), None if drawn is None else drawn.numpy()
    count, features = samples.shape
    steps = count if places is None else len(places)
    blocks = -(-steps // BLOCK)
    size = -(-steps // blocks)
    # Blocks of one size: the last is filled up with samples of zeros, on which the steps are zeros too.
    own, deltas = np.zeros((blocks * size, features)), np.zeros(blocks * size)
    own[:steps] = samples if places is None else samples.take(places, 0)
    deltas[:steps] = -(kappas if places is None else kappas.take(places))
    own, wanted = own.reshape(blocks, size, features), deltas.reshape(blocks, size)
    scaled = coupling * own
    systems = scaled @ own.transpose(0, 2, 1)
    change, u = np.zeros(count + 1), np.zeros(features)
    if places is None:
        systems.reshape(blocks, -1)[:, :: size + 1] += 1
        again: Any = [None] * blocks
    else:
        again = np.full(blocks * size, count, np.int32)
        again[:steps] = places
        again = again.reshape(blocks, size)
        systems += again[:, :, None] == again[:, None, :]
    for system, delta, block, a, b in zip(systems, wanted, again, scaled, own, strict=True):
        delta -= a @ u  # −κ at the weights that the blocks before have left
        if block is not None:
            delta -= change[block]
        # The lower triangle row by row is the upper one of the transpose column by column, as BLAS wants it. In place:
        # `deltas` has all steps in the end.
        dtrsv(system.T, delta, trans=1, overwrite_x=1)
        if block is not None:
            np.add.at(change, block, delta)
        u += delta @ b
    return torch.from_numpy((deltas if places is None else change)[:count]), torch.from_numpy(u)
