"""A method of a user's whose workers mix with their neighbours what is still travelling while they go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from algorithms.dasgd import DaSGD
from algorithms.gossip_graph import metropolis_weights


@dataclass(kw_only=True, eq=False)
class Late(DaSGD):
    """DaSGD on a line of workers, whose ends have one neighbour and the others two."""

    combine: ClassVar[Literal["mean", "gather", "mix"]] = "mix"

    def mixing(self, workers: int) -> Tensor:
        return metropolis_weights([[worker, worker + 1] for worker in range(workers - 1)], workers)
