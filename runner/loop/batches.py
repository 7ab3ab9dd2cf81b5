"""Which samples make up which batch.

An epoch is one seeded permutation of the training set, cut into batches, the last one short. Batches are numbered
through the run, so a batch is a function of (seed, number). On a parameter server workers lease them one by one
(`runner.loop.leases`); collective methods cut each into one share per worker (`shares`).

A method may want its samples drawn independently instead, with replacement: an epoch is then as many batches of the
same sizes, and a batch is still a function of (seed, number).

Where workers have fixed shards of the training set, the numbers are the same, and a batch is drawn uniformly, with
replacement or without, from the shards of the worker that has it: a function of (seed, number, shards). Draws of two
batches are independent in either case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from algorithms.base import Batch, shard_range
from runner.config.seeds import derive


def relative_size(own: int, samples: int, workers: int) -> float:
    """Return a worker's samples relative to an equal cut of the step's samples over all workers.

    Exactly 1.0 for an equal cut, where the division could round: the weight of a contribution is then no operation.
    """
    return 1.0 if samples == workers * own else own * workers / samples


EPOCHS_KEPT = 2
"""Orders of the samples that are kept, those drawn last."""


def coordinate_generator(seed: int, batch: int) -> np.random.Generator:
    """Return the generator of the coordinates that a shared-memory method writes for a batch.

    A function of (seed, batch) alone: simulated workers and real processes write the same ones, whoever has the batch.
    """
    return np.random.Generator(np.random.Philox(key=derive(seed, "coordinates", batch)))


class Batches:
    """The batches of a run.

    Args:
        samples: size n of the training set.
        size: samples a batch.
        seed: the run's seed.
        epochs: effective passes; the run ends with the batch that completes them.
        device: where sample numbers are; an epoch's go there at once, so that no batch makes the host wait.
        shards: number of workers if each has a fixed shard of the training set; None if all use all of it.
        total: number of batches of the run, where `epochs` passes over the samples are not what it is.
        replacement: whether the samples of a batch are drawn independently of each other, so that one may come twice.
            None: yes with fixed shards, no without.
    """

    def __init__(
        self,
        *,
        samples: int,
        size: int,
        seed: int,
        epochs: float,
        device: torch.device | str = "cpu",
        shards: int | None = None,
        total: int | None = None,
        replacement: bool | None = None,
    ) -> None:
        self.samples = samples
        self.size = size
        self.seed = seed
        self.per_epoch = math.ceil(samples / size)
        # Whole passes are counted in batches: the last one of each is short, so samples alone would not tell how many.
        whole = math.floor(epochs)
        # Rounded to a millionth of a sample: the last tenth of 1.1 passes over 1,000 samples comes out as
        # 100.00000000000009, and would take one more batch.
        self.total = whole * self.per_epoch + math.ceil(round((epochs - whole) * samples, 6) / size)
        # A method with costs of its own counts effective passes, not passes over the samples.
        if total is not None:
            self.total = total
        self.device = torch.device(device)
        self.shards = shards
        # With replacement is what the analyses of methods with fixed shards assume.
        self.replacement = shards is not None if replacement is None else replacement
        self._orders: dict[int, Tensor] = {}
        self._pools: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return self.total

    def batch(self, number: int) -> Batch:
        """Return batch `number` of the run, counted from 0."""
        # A function of (seed, number), not of who asks or what was drawn before: a resumed run, a replayed trace and a
        # worker that takes over a lost one's batch all see the same samples.
        epoch, position = divmod(number, self.per_epoch)
        if self.replacement and self.shards is None:
            size = self._size(position)
            return Batch(number, epoch, self._chosen(number, 0, self.samples, size), size=size)
        # A view of the permutation: batches of one epoch share its memory.
        ids = self._order(epoch)[position * self.size : (position + 1) * self.size]
        return Batch(number, epoch, ids, size=ids.numel())

    def draw(self, number: int, shards: Sequence[int], rank: int = 0, of: int = 1) -> Batch:
        """Return batch `number`, drawn from shards of the training set.

        Args:
            number: counted from 0.
            shards: numbers of the shards, in the order in which their worker got them.
            rank: which share of the batch is wanted.
            of: number of shares that the batch is drawn in, whose sizes differ by at most one.
        """
        assert self.shards is not None
        epoch, position = divmod(number, self.per_epoch)
        size = len(shard_range(self._size(position), of, rank))
        # In the order in which the worker got its shards, not sorted: the same number
        # must pick the same sample in a replay.
        pool = self._pool(tuple(shards))
        chosen = self._chosen(number, rank, len(pool), size)
        return Batch(number, epoch, pool.index_select(0, chosen), pool, rank, size)

    def steps(self, numbers: Sequence[int], shards: Sequence[int] = ()) -> list[Batch]:
        """Return the batches of a worker's local steps, drawn from `shards` where they are fixed."""
        found = [self.batch(number) if self.shards is None else self.draw(number, shards) for number in numbers]
        return [batch._replace(step=step) for step, batch in enumerate(found)]

    def size_of(self, number: int) -> int:
        """Return the samples of batch `number` of the run."""
        return self._size(number % self.per_epoch)

    def share_sizes(self, number: int, workers: int) -> list[int]:
        """Return the samples of each worker's share of batch `number`, as `shares` cuts it."""
        size, longer = divmod(self.size_of(number), workers)
        return [size + 1] * longer + [size] * (workers - longer)

    def _size(self, position: int) -> int:
        """Return the samples of an epoch's batch: of the last one, those that are left."""
        # Also where nothing is left over, as with independent draws: all ways to draw make epochs of the same batches.
        return min(self.size, self.samples - position * self.size)

    def _chosen(self, number: int, rank: int, among: int, size: int) -> Tensor:
        """Return which of `among` samples a batch has, or a worker's share of it."""
        key = derive(self.seed, "drawn", number, rank)
        # On the CPU whatever the device is: its generators give the same numbers on every machine.
        if self.replacement:
            chosen = torch.randint(among, (size,), generator=torch.Generator().manual_seed(key))
        else:
            # NumPy's choice takes a time that grows with `size`; that of a permutation grows with the shard.
            random = np.random.Generator(np.random.Philox(key=key))
            chosen = torch.from_numpy(random.choice(among, size, replace=False))
        return chosen.to(self.device)

    def shares(self, number: int, workers: int) -> list[Batch]:
        """Cut batch `number` into shares, one for each worker, whose sizes differ by at most one sample."""
        # With fixed shards a worker's share comes from its own samples; there is nothing to cut.
        if self.shards is not None:
            return [self.draw(number, [rank], rank, workers) for rank in range(workers)]
        batch = self.batch(number)
        # Contiguous cuts of one permutation: the union is the batch whatever the number of workers is.
        shares = enumerate(torch.tensor_split(batch.ids, workers))
        return [batch._replace(ids=ids, piece=rank, size=ids.numel()) for rank, ids in shares]

    def _pool(self, shards: tuple[int, ...]) -> Tensor:
        # Kept for each combination of shards that ever had a worker: it changes only when one is lost.
        if shards not in self._pools:
            assert self.shards is not None
            ranges = [shard_range(self.samples, self.shards, shard) for shard in shards]
            pool = torch.cat([torch.arange(piece.start, piece.stop) for piece in ranges])
            self._pools[shards] = pool.to(self.device)
        return self._pools[shards]

    def shard(self, worker: int, workers: int, next_batch: int) -> Batch:
        """Return the fixed shard of a worker: n samples cut in M contiguous pieces that differ by at most one.

        Args:
            worker: whose shard.
            workers: number of workers M.
            next_batch: number of the batch that comes next; the shard is drawn as in its pass over the training set.
        """
        piece = shard_range(self.samples, workers, worker)
        ids = torch.arange(piece.start, piece.stop, device=self.device)
        # Below 0 is no batch: dropout has a stream of its own for each shard and barrier.
        return Batch(-1 - next_batch * workers - worker, next_batch // self.per_epoch, ids, size=ids.numel())

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(derive(self.seed, "permutation", epoch))
            # On the CPU: a GPU's generator would give another permutation.
            order = torch.randperm(self.samples, generator=generator)
            if self.device.type == "cuda":
                # From page-locked memory the copy runs while the host goes on to launch the epoch's first step.
                order = order.pin_memory().to(self.device, non_blocking=True)
            # Where an epoch ends, some workers still hold batches of it while others have begun the next.
            self._orders = dict([*self._orders.items(), (epoch, order)][-EPOCHS_KEPT:])
        return self._orders[epoch]
