"""Which samples make up which batch, and who has it.

An epoch is one seeded permutation of the training set, cut into batches, the last one short. Batches are numbered
through the run, so a batch is a function of (seed, number). On a parameter server workers lease them one by one
(`Leases`); collective methods cut each into one share per worker (`shares`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch
from runner.seeds import derive

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
        self._orders: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.total

    def batch(self, number: int) -> Batch:
        """Return batch `number` of the run, counted from 0."""
        epoch, position = divmod(number, self.per_epoch)
        ids = self._order(epoch)[position * self.size : (position + 1) * self.size]
        return Batch(number, epoch, ids)

    def shares(self, number: int, workers: int) -> list[Batch]:
        """Cut batch `number` into shares, one for each worker, whose sizes differ by at most one sample."""
        batch = self.batch(number)
        return [batch._replace(ids=ids) for ids in torch.tensor_split(batch.ids, workers)]

    def shard(self, worker: int, workers: int, following: int) -> Batch:
        """Return the fixed shard of a worker: n samples cut in M contiguous pieces that differ by at most one.

        Args:
            worker: whose shard.
            workers: number of workers M.
            following: number of the batch that comes next; the shard is drawn as in its pass over the training set.
        """
        cut = self.samples // workers, self.samples % workers
        low = worker * cut[0] + min(worker, cut[1])
        ids = torch.arange(low, low + cut[0] + (worker < cut[1]), device=self.device)
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
        quota: batches that may be handed out before the workers meet at a barrier; None for all of them.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.next = 0
        self.held: dict[int, int] = {}
        self.returned: list[int] = []
        self.idle: set[int] = set()
        self.gone: set[int] = set()
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
        return self.batches.batch(number)

    def done(self, worker: int) -> Batch:
        """Return the batch that `worker` held and mark it as done."""
        return self.batches.batch(self.held.pop(worker))

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
            "quota": self.quota,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.next = state["next"]
        self.held = {int(worker): number for worker, number in state["held"].items()}
        self.returned = list(state["returned"])
        self.idle = set(state["idle"])
        self.gone = set(state["gone"])
        self.quota = state.get("quota")
