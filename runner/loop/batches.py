"""Which samples make up which batch, and who has it.

An epoch is one seeded permutation of the training set, cut into batches, the last one short. Batches are numbered
through the run, so a batch is a function of (seed, number). On a parameter server workers lease them one by one
(`Leases`); collective methods cut each into one share per worker (`shares`).

Where workers have fixed parts of the training set, the numbers are the same, and a batch is drawn, uniformly and
independently, from the parts of the worker that has it: a function of (seed, number, parts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch, cut
from runner.config.seeds import derive

EPOCHS_KEPT = 2
"""Orders of the samples that are kept, those drawn last."""


class Batches:
    """The batches of a run.

    Args:
        samples: size n of the training set.
        size: samples a batch.
        seed: the run's seed.
        epochs: effective passes; the run ends with the batch that completes them.
        device: where sample numbers are; an epoch's go there at once, so that no batch makes the host wait.
        parts: number of workers where each has a fixed part of the training set, None where all use all of it.
        total: number of batches of the run, where `epochs` passes over the samples are not what it is.
    """

    def __init__(
        self,
        *,
        samples: int,
        size: int,
        seed: int,
        epochs: float,
        device: torch.device | str = "cpu",
        parts: int | None = None,
        total: int | None = None,
    ) -> None:
        self.samples = samples
        self.size = size
        self.seed = seed
        self.per_epoch = math.ceil(samples / size)
        whole = math.floor(epochs)
        self.total = whole * self.per_epoch + math.ceil(round((epochs - whole) * samples, 6) / size)
        if total is not None:
            self.total = total
        self.device = torch.device(device)
        self.parts = parts
        self._orders: dict[int, Tensor] = {}
        self._pools: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return self.total

    def batch(self, number: int) -> Batch:
        """Return batch `number` of the run, counted from 0."""
        epoch, position = divmod(number, self.per_epoch)
        ids = self._order(epoch)[position * self.size : (position + 1) * self.size]
        return Batch(number, epoch, ids)

    def drawn(self, number: int, parts: Sequence[int], rank: int = 0, of: int = 1) -> Batch:
        """Return batch `number`, drawn from parts of the training set.

        Args:
            number: counted from 0.
            parts: numbers of the parts, in the order in which their worker got them.
            rank: which share of the batch is wanted.
            of: number of shares that the batch is drawn in, whose sizes differ by at most one.
        """
        assert self.parts is not None
        epoch, position = divmod(number, self.per_epoch)
        size = len(cut(min(self.size, self.samples - position * self.size), of, rank))
        pool = self._pool(tuple(parts))
        generator = torch.Generator().manual_seed(derive(self.seed, "drawn", number, rank))
        chosen = torch.randint(len(pool), (size,), generator=generator)
        return Batch(number, epoch, pool[chosen.to(self.device)], pool)

    def shares(self, number: int, workers: int) -> list[Batch]:
        """Cut batch `number` into shares, one for each worker, whose sizes differ by at most one sample."""
        if self.parts is not None:
            return [self.drawn(number, [rank], rank, workers) for rank in range(workers)]
        batch = self.batch(number)
        return [batch._replace(ids=ids) for ids in torch.tensor_split(batch.ids, workers)]

    def _pool(self, parts: tuple[int, ...]) -> Tensor:
        if parts not in self._pools:
            assert self.parts is not None
            ranges = [cut(self.samples, self.parts, part) for part in parts]
            pool = torch.cat([torch.arange(piece.start, piece.stop) for piece in ranges])
            self._pools[parts] = pool.to(self.device)
        return self._pools[parts]

    def shard(self, worker: int, workers: int, following: int) -> Batch:
        """Return the fixed shard of a worker: n samples cut in M contiguous pieces that differ by at most one.

        Args:
            worker: whose shard.
            workers: number of workers M.
            following: number of the batch that comes next; the shard is drawn as in its pass over the training set.
        """
        piece = cut(self.samples, workers, worker)
        ids = torch.arange(piece.start, piece.stop, device=self.device)
        # Below 0 is no batch: dropout has a stream of its own for each shard and barrier.
        return Batch(-1 - following * workers - worker, following // self.per_epoch, ids)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(derive(self.seed, "permutation", epoch))
            order = torch.randperm(self.samples, generator=generator)
            if self.device.type == "cuda":
                order = order.pin_memory().to(self.device, non_blocking=True)
            # Where an epoch ends, some workers still hold batches of it while others have begun the next.
            self._orders = dict([*self._orders.items(), (epoch, order)][-EPOCHS_KEPT:])
        return self._orders[epoch]


class Leases:
    """Hand out batches one by one; a lost worker's batch is handed out again.

    A batch is in exactly one place: not handed out yet, held by a worker, returned, or done.

    Attributes:
        held: batch number by worker, in the order in which they were handed out.
        returned: what lost workers held, to be handed out before anything else.
        idle: workers that asked when there was nothing to hand out.
        gone: workers that were lost.
        parts: by worker, which parts of the training set it has, where they are fixed; empty where not.
        quota: batches that may be handed out before the workers meet at a barrier; None for all of them.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.next = 0
        self.held: dict[int, int] = {}
        self.returned: list[int] = []
        self.idle: set[int] = set()
        self.gone: set[int] = set()
        self._drawn_from: dict[int, list[int]] = {}
        self._divide()
        self.quota: int | None = None

    def lease(self, worker: int) -> Batch | None:
        """Return the next batch for `worker`, None when there is none left to hand out, or none before a barrier."""
        if self.quota is not None and self._out >= self.quota:
            self.idle.add(worker)
            return None
        if self.returned:
            number = self.returned.pop(0)
        elif self.next < len(self.batches):
            number = self.next
            self.next += 1
        else:
            self.idle.add(worker)
            return None
        self.idle.discard(worker)
        self.held[worker] = number
        # Parts that it takes over later are not in this batch.
        self._drawn_from[worker] = list(self.parts.get(worker, ()))
        return self._batch(worker, number)

    def done(self, worker: int) -> Batch:
        """Return the batch that `worker` held and mark it as done."""
        return self._batch(worker, self.held.pop(worker))

    def _batch(self, worker: int, number: int) -> Batch:
        if self.batches.parts is None:
            return self.batches.batch(number)
        return self.batches.drawn(number, self._drawn_from[worker])

    def _divide(self) -> None:
        self.parts = {worker: [worker] for worker in range(self.batches.parts or 0)}

    def heir(self, lost: int) -> tuple[int, list[int]] | None:
        """Give the parts of a lost worker to the living one that has the fewest, the first of these.

        Returns:
            That worker and the numbers of the parts; None where parts are not fixed, or no worker lives.
        """
        living = [worker for worker in self.parts if worker not in self.gone]
        if not living or not self.parts[lost]:
            return None
        heir = min(living, key=lambda worker: len(self.parts[worker]))
        parts, self.parts[lost] = self.parts[lost], []
        self.parts[heir] += parts
        return heir, parts

    def forfeit(self, worker: int) -> list[int]:
        """Take back what a lost worker held, and return the idle workers that are to lease now because of it."""
        self.gone.add(worker)
        self.idle.discard(worker)
        if worker in self.held:
            self.returned.append(self.held.pop(worker))
        return sorted(self.idle)[: len(self.returned)]

    def restart(self) -> None:
        """Take everything back: all workers, lost ones too, begin anew."""
        self.returned += self.held.values()
        self.held.clear()
        self.idle.clear()
        self.gone.clear()
        self._divide()

    @property
    def _out(self) -> int:
        """Batches that are held or done."""
        return self.next - len(self.returned)

    @property
    def met(self) -> bool:
        """Whether all workers have come to a barrier that has more batches behind it."""
        return self.quota is not None and self._out >= self.quota and not self.held and not self.finished

    @property
    def finished(self) -> bool:
        """Whether every batch is done."""
        return self.next >= len(self.batches) and not self.held and not self.returned

    def state_dict(self) -> dict[str, Any]:
        """Return the leases as plain values."""
        return {
            "next": self.next,
            "held": dict(self.held),
            "returned": list(self.returned),
            "idle": sorted(self.idle),
            "gone": sorted(self.gone),
            "parts": {worker: list(parts) for worker, parts in self.parts.items()},
            "drawn_from": {worker: list(parts) for worker, parts in self._drawn_from.items()},
            "quota": self.quota,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.next = state["next"]
        self.held = {int(worker): number for worker, number in state["held"].items()}
        self.returned = list(state["returned"])
        self.idle = set(state["idle"])
        self.gone = set(state["gone"])
        # Checkpoints from before there were parts have none.
        self.parts = {int(worker): list(parts) for worker, parts in state.get("parts", {}).items()}
        self._drawn_from = {int(worker): list(parts) for worker, parts in state.get("drawn_from", {}).items()}
        self.quota = state.get("quota")
