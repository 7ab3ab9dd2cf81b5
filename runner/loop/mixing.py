"""Workers that combine with their neighbours alone: who hears whom, what of, and what that costs.

A worker and its neighbours are a group, in which each vector is sent to all others as in an all-gather of that size.
A worker's group is its own, and overlaps with those of its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.base import Collective
from runner.loop.clock import Clock


class Mixing:
    """The groups of the workers of a collective method that mixes.

    Args:
        method: says W; it need not be started.
        workers: number of workers M.

    Attributes:
        groups: by worker, those whose contributions it gets, ascending, itself too.
        hops: the most combinations that news take from a worker to another.
    """

    def __init__(self, method: Collective, workers: int) -> None:
        weights = method.mixing(workers)
        self.groups = [row.nonzero().flatten().tolist() for row in weights]
        self._weights = [row[group].tolist() for row, group in zip(weights, self.groups, strict=True)]
        self.hops = _hops(weights != 0)

    def mixed(self, worker: int, vectors: Sequence[Tensor]) -> Tensor:
        """Return a worker's mean of its group's vectors, added up in the order of the group, in memory of its own."""
        weights = self._weights[worker]
        # An even mean is one division, with the bits of a mean over all workers; a single vector is itself.
        if len(set(weights)) == 1:
            total = vectors[0].clone()
            for vector in vectors[1:]:
                total.add_(vector)
            return total.div_(len(vectors)) if len(vectors) > 1 else total
        total = vectors[0] * weights[0]
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            total.add_(vector, alpha=weight)
        return total

    def seconds(self, clock: Clock, nbytes: int) -> list[float]:
        """Return how long each worker's group takes to exchange what has `nbytes` of each."""
        return [clock.combining_seconds("gather", nbytes, len(group)) for group in self.groups]

    def nbytes(self, clock: Clock, nbytes: int) -> int:
        """Return the bytes that all workers together send for what `seconds` times."""
        # A worker's share of what its group would send if it were one for all of its members.
        return sum(clock.combining_bytes("gather", nbytes, len(group)) // len(group) for group in self.groups)


def _hops(edges: Tensor) -> int:
    """Return the diameter of a connected graph, whose edges (M, M) lead from each worker to itself too."""
    step = edges.double()
    # Each round whoever has reached a worker reaches its neighbours too.
    reached, rounds = torch.eye(len(edges), dtype=torch.float64), 0
    while not reached.all():
        reached, rounds = ((reached @ step) > 0).double(), rounds + 1
    return rounds
