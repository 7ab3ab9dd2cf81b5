"""The protocol of methods whose workers share one vector of weights in memory, and write to it without a lock.

    read       ŵ ← the shared w, while others write: its pieces may be of different ages        (eq. 2.6)
    compute    v from ŵ on a mini-batch I_t
    write      (w)_k ← (w)_k − η (v)_k for some coordinates k, one by one                        (eq. 2.4)

Source: Huo, PhD thesis 2020, section 2.3, after Lian et al. 2015 and Recht et al. 2011 (Hogwild). The architecture
grants that a single coordinate is read and written whole, and nothing more.

To add a method, subclass `SharedMemory` and implement `direction`. Methods whose workers meet now and then, as between
the outer iterations of SVRG, say when (`barrier_every`) and implement `snapshot`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from algorithms.base import Batch, Fields, Message, Oracle, Stateful, Step, in_range, integer


class SharedMemory(Stateful):
    """What all workers of a method on shared memory run: simulated they share one instance, each process has its own.

    A barrier comes after `barrier_from` updates and then after every `barrier_every`: all updates so far are finished,
    every worker computes the gradient of its fixed shard of the training set, and their sum makes a snapshot.

    Attributes:
        w: the shared flat weights (n,), valid after `start`; another process may change them at any time.
    """

    shares_memory: ClassVar[bool] = True

    w: Tensor

    def start(self, w: Tensor, workers: int) -> None:
        """Take over `w` (not a copy) as the shared weights, and allocate the method's state."""
        self.w = w
        self.workers = workers

    @abstractmethod
    def direction(self, oracle: Oracle, read: Tensor, batch: Batch) -> Tensor:
        """Return v (n,) from what was read, ŵ (n,), and a batch; borrowed, valid until the next call.

        It must not look at `w`: when it is called, between the read and the write, is up to the executor.
        """

    def rate(self, batch: Batch, step: Step) -> float:
        """Return the learning rate η with which v of this batch is written: the schedule's."""
        return step.lr

    def coordinates(self, n: int, generator: np.random.Generator) -> Tensor | None:
        """Return the coordinates to be written, ascending and distinct, drawn from `generator`; None for all of `n`."""
        return None

    def write(self, where: Tensor | slice, v: Tensor, lr: float) -> None:
        """Write coordinates of v (n,) to the shared weights, eq. 2.4, without a lock."""
        if isinstance(where, slice):
            self.w[where].add_(v[where], alpha=-lr)  # eq. 2.4
        else:
            self.w.index_add_(0, where, v[where], alpha=-lr)  # eq. 2.4

    def snapshot(self, gradient: Tensor) -> None:
        """Make the present shared weights the snapshot; `gradient` (n,) is that of the full training set there."""
        raise NotImplementedError(f"{type(self).__name__} takes no snapshots")

    def snapshots(self, n: int) -> Fields:
        """Return the tensors of `state` besides `w`, for `n` weights, as fields; callable before `start`."""
        return {}

    def state(self) -> Message:
        """Return every tensor that the next steps depend on, by name; not copies."""
        return {"w": self.w}

    def solution(self) -> Tensor:
        """Return the flat weights that are evaluated, saved and hashed."""
        return self.w


def draw_coordinates(count: int, n: int, generator: np.random.Generator) -> Tensor | None:
    """Return `count` distinct coordinates of `n`, uniformly drawn and ascending; None if that is all of them."""
    if count >= n:
        return None
    chosen = generator.choice(n, count, replace=False, shuffle=False)
    chosen.sort()
    return torch.from_numpy(chosen)


def check_coordinates(coordinates: int | None) -> int | None:
    """Check the number of coordinates that an update writes, None for all, and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    return None if coordinates is None else int(in_range("coordinates", integer("coordinates", coordinates), 1))
