"""Lock-free SGD on shared memory: Hogwild with mini-batches, the AsySGD that Shared-AsySVRG is measured against.

    v_t = 1/|I_t| Σ_{i ∈ I_t} ∇f_i(ŵ_t)            ŵ_t read while others write
    (w)_k ← (w)_k − η (v_t)_k                       for `coordinates` random coordinates k, or for all

Source: Recht et al., "Hogwild", NIPS 2011; for non-convex f and in this notation Lian et al. 2015, which Huo, PhD
thesis 2020, section 2.3 follows. In 2.5.1 the thesis updates 1,000 random coordinates at a time.

The l2 term is part of every f_i, so `weight_decay · ŵ` is part of v. With one worker and all coordinates this is
sequential SGD, to the bit; with several, all coordinates, and reads and writes that take no time, it is ASGD on a
parameter server. Ours: mini-batches are handed out from one permutation of the samples an epoch, as everywhere in
dcrun; the thesis draws them independently.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from algorithms.base import Batch, Oracle, in_range
from algorithms.shared_memory import SharedMemory, check_coordinates, draw_coordinates


class Hogwild(SharedMemory):
    """Lock-free SGD.

    Args:
        coordinates: how many random coordinates each update writes; null for all.
        weight_decay: coefficient C of the l2 term of f.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, *, coordinates: int | None = None, weight_decay: float = 0.0) -> None:
        self.count = check_coordinates(coordinates)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)

    def direction(self, oracle: Oracle, read: Tensor, batch: Batch) -> Tensor:
        """Return the mean gradient at ŵ."""
        g = oracle.gradient(read, batch)
        return g.add_(read, alpha=self.weight_decay) if self.weight_decay else g

    def coordinates(self, n: int, generator: np.random.Generator) -> Tensor | None:
        """Return the coordinates k_t of one update, drawn at random, or None for all."""
        return None if self.count is None else draw_coordinates(self.count, n, generator)
