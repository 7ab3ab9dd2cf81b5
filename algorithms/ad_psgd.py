"""AD-PSGD, asynchronous decentralised parallel SGD: a worker averages with one neighbour, and nobody waits for others.

    worker i begins:      x̂_i ← x_i
    when g = ∇F(x̂_i; ξ) is there, with a neighbour j that is drawn uniformly:
                          x_i, x_j ← (x_i + x_j) / 2                                         atomically
                          x_i ← x_i − γ g

While worker i computes, others average with x_i, so g is stale when it is applied.

Source: Lian et al., "Asynchronous Decentralized Parallel Stochastic Gradient Descent", ICML 2018 (arXiv 1710.06952),
algorithm 1, written down from accounts of the paper: numbers of its lines are therefore not given. γ is the schedule's
learning rate; the neighbours are those of `graph`, see `algorithms.gossip_graph`. One worker is sequential SGD, to the
bit.

Deviation: the x_i of all workers lie with a server, which takes gradients one by one. That makes each averaging atomic,
and gives it a place in an order that is recorded and replayed to the bit; no two wait for each other, for which the
paper asks for a bipartite graph. A worker's way to its neighbour and back is a push and a pull, of as many bytes as x_i
and x_j, at the same seconds of the clock while the neighbour is free. On real processes what passes between pairs of
workers in the paper passes through the server's process: the arithmetic is AD-PSGD's, the traffic that of a hub.

Decided here, where the paper is silent: momentum buffers are each worker's, at its x_i; so is weight decay, when g is
applied; the mean of all x_i is evaluated. The x_i of a lost worker leaves the mean, and nobody averages with it; in a
run that is resumed such a worker begins at the mean of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.asgd import ASGD
from algorithms.base import Message, Step, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.gossip_graph import check_graph, neighbours


@dataclass(kw_only=True, eq=False)
class ADPSGD(ASGD):
    """AD-PSGD; `momentum`, `nesterov` and `weight_decay`, of each worker's own steps, are those of `SGDOptions`.

    Args:
        graph: who averages with whom: "ring", "complete", "torus", "exponential", or edges as [[0, 1], [1, 2]].

    Raises:
        ValueError: an argument is out of range.
    """

    # No option here: γ is the same whatever the staleness.
    staleness: ClassVar[str] = "plain"

    graph: str | Sequence[Sequence[int]] = "ring"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_graph(self.graph)

    def check_workers(self, workers: int) -> None:
        """Check that the edges are of so many workers."""
        neighbours(self.graph, workers)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; `w` will hold the mean."""
        self.w = w
        self.workers = workers
        self.near = neighbours(self.graph, workers)
        self.x = w.repeat(workers, 1)
        self.v = zeros(workers, w.numel(), like=w) if self.momentum else None
        # On the CPU, where the host may look at it without waiting for a GPU.
        self.alive = torch.ones(workers, dtype=torch.int64)
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def pull(self, worker: int) -> Message:
        """Send x̂_i ← x_i."""
        if not self.alive[worker]:
            self.x[worker].copy_(self.solution())
            self.alive[worker] = 1
        return {"w": self.x[worker]}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Average with a neighbour, and step along the pushed gradient."""
        x = self.x[worker]
        if near := [other for other in self.near[worker] if self.alive[other]]:
            # Of the generator that executors seed for each push.
            other = self.x[near[int(torch.randint(len(near), ()))]]
            # x_i, x_j ← (x_i + x_j) / 2
            other.copy_(x.add_(other).mul_(0.5))
        # x_i ← x_i − γ g, with the l2 term and momentum
        self.update_blockwise(x, message["g"], None if self.v is None else self.v[worker], lr=step.lr)

    def weights_of(self, worker: int) -> Tensor:
        """Return x_i."""
        return self.x[worker]

    def lost(self, worker: int) -> None:
        """Go on without a worker's x_i."""
        self.alive[worker] = 0
        if self.v is not None:
            self.v[worker].zero_()

    def solution(self) -> Tensor:
        """Return the mean of the x_i of all workers that are there, added up in their order."""
        first, *others = self.alive.nonzero().flatten().tolist() or range(self.workers)
        self.w.copy_(self.x[first])
        for other in others:
            self.w.add_(self.x[other])
        return self.w.div_(1 + len(others))

    def state(self) -> Message:
        """Return the x_i as `x` (M, n), whether each is there as `alive` (M,), and the velocities `v` with momentum."""
        own = {"x": self.x, "alive": self.alive}
        return own | ({} if self.v is None else {"v": self.v})
