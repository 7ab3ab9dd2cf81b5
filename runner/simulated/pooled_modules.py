"""The modules of a simulated pipeline side by side in compute processes: module k in process k mod N.

A module's tapes and optimizer stay in its process, which does with them what one process would do, in the same order:
only modules that do not wait for each other's messages overlap. Of a decoupled method these are the backward passes of
an iteration, and the forward passes of the next one, which begin where they can: a module goes forward once its
backward pass is over, and its features are there. A batch is through all modules before the next one goes into the
first: so the loss is known before a weight moves that it does not depend on, and the run stops where one process would.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algorithms.base import Message, Step
from runner.gradients.partition import Partition
from runner.simulated.arena import Arena, NotShareable, SharedFile, end_of, lay_out_state
from runner.simulated.compute_pool import ComputePool, PoolOptions
from runner.simulated.compute_process import Task, largest_result
from runner.simulated.module_tasks import BACKWARD, FORWARD, RESTORE, SAVE, SETUP, ModulePlaces
from runner.simulated.pipeline_modules import as_lists
from runner.simulated.tensor_slot import TensorSlot


class PooledModules:
    """Compute in compute processes, as far as possible side by side.

    Args:
        partition: the network in modules; its replica has the initial weights.
        options: of the processes.
        locked: see `Pipeline.locked`.
        batch_size: samples of a full batch.
        totals: of the run, sums of losses, errors and samples (3,).
    """

    def __init__(
        self, partition: Partition, options: PoolOptions, *, locked: bool, batch_size: int, totals: Tensor
    ) -> None:
        self.locked = locked
        self.totals = totals
        self.ranks = range(len(partition.stages))
        replica = partition.oracle.replica
        tensors = {
            "weights": replica.weights,
            "running": replica.initial_statistics(),
            "peaks": torch.zeros(len(self.ranks), dtype=torch.int64),
        }
        state = lay_out_state(tensors, 0)
        # Both what a module sends and the error gradient of it are of its outputs' shape.
        capacities = [batch_size * torch.Size(shape).numel() for shape in partition.outputs[:-1]]
        offset, slots = end_of(state, 0), list[TensorSlot]()
        for capacity in (each for each in capacities for _ in range(3)):
            slots.append(TensorSlot.at(offset, capacity))
            offset = slots[-1].end
        nowhere = TensorSlot.at(offset, 0)
        deltas = [(nowhere, nowhere), *zip(slots[1::3], slots[2::3], strict=True)]
        self.places = ModulePlaces(**state, features=slots[::3], deltas=deltas, file=SharedFile())
        # A place for every call that may be under way: what modules make lies elsewhere, so these are small.
        k = tensors["running"].numel()
        size = largest_result([{}], k)
        results = [nowhere.end + number * size for number in range(2 * len(self.ranks))]
        self.arena = Arena(results[-1] + size)
        for name, tensor in self.arena.tensors(state).items():
            tensor.copy_(tensors[name])
        for slot in (nowhere, *slots):
            slot.put(self.arena, None)
        self._number = -1
        # Modules whose backward pass is under way.
        self._backward: set[int] = set()
        # Whether the last module counts losses when it goes backward: they must be there before the loss is looked at.
        # What it does in the first iteration shows.
        self._counts_backward = True
        self._state: dict[str, Any] | None = None
        self.pool = ComputePool(options, arena=self.arena, places=self.places, results=results, statistics=k)
        # The others wait for a forward pass, and nobody for a backward pass before the next iteration.
        self.pool.order = lambda: [_key(FORWARD, rank) for rank in self.ranks]

    def start(self) -> None:
        """See `Modules.start`."""
        self.pool.wait_ready()
        for rank in self.ranks:
            self._tell(SETUP, rank)

    def close(self) -> None:
        """See `Modules.close`."""
        self.pool.close()

    def iterate(self, number: int, step: Step) -> None:
        """See `Modules.iterate`."""
        self._number, self._state = number, None
        for rank in self.ranks:
            # Then its weights are those of this iteration, and what it sent down before is there.
            self._take(BACKWARD, rank)
            if rank:
                if not self.locked:
                    self._begin(BACKWARD, rank - 1, step)
                self._take(FORWARD, rank - 1)
            self._begin(FORWARD, rank)
        last = self.ranks[-1]
        # It needs no message, and comes after the forward pass, which its process has got first.
        self._begin(BACKWARD, last, step)
        self._take(FORWARD, last)
        if self.locked or self._counts_backward:
            self._take(BACKWARD, last)
        if self.locked:
            for rank in reversed(self.ranks[:-1]):
                self._begin(BACKWARD, rank, step)
                self._take(BACKWARD, rank)

    def _begin(self, call: int, rank: int, step: Step | None = None) -> None:
        reals = () if step is None else (step.lr, step.decay)
        self.pool.submit(_key(call, rank), Task(call, (rank, self._number), reals), self._process(rank))
        if call == BACKWARD:
            self._backward.add(rank)

    def _take(self, call: int, rank: int) -> None:
        """Wait until a call is over; a backward pass may not be under way."""
        if call == BACKWARD and rank not in self._backward:
            return
        result = self.pool.result(_key(call, rank), {})
        result.count(self.totals)
        if call == BACKWARD:
            self._backward.discard(rank)
            if result.counts and not self._counts_backward:
                raise NotShareable.because("a module begins to count losses in its backward pass in mid-run")
            if rank == self.ranks[-1]:
                self._counts_backward = bool(result.counts)
        self.pool.release(_key(call, rank))

    def _process(self, rank: int) -> int:
        return rank % len(self.pool)

    def _tell(self, call: int, rank: int) -> None:
        self.pool.tell(Task(call, (rank,)), self._process(rank))

    def finish(self) -> None:
        """See `Modules.finish`."""
        for rank in self.ranks:
            self._take(BACKWARD, rank)

    def weights(self) -> Tensor:
        """See `Modules.weights`."""
        return self.arena.tensor(self.places.weights)

    def running_statistics(self) -> Tensor:
        """See `Modules.running_statistics`."""
        return self.arena.tensor(self.places.running)

    def peaks(self) -> list[int]:
        """See `Modules.peaks`."""
        return self.arena.tensor(self.places.peaks).tolist()

    def states(self) -> list[Message]:
        """See `Modules.states`."""
        return self.state_dict()["methods"]

    def state_dict(self) -> dict[str, Any]:
        """See `Modules.state_dict`; without processes what was asked for last, if nothing has been done since."""
        if self._state is None:
            self._state = self._gathered()
        return self._state

    def _gathered(self) -> dict[str, Any]:
        found = []
        for rank in self.ranks if len(self.pool) else ():
            self._tell(SAVE, rank)
            found.append(self.places.file.take())
        deltas = [slots[self._number % 2].take(self.arena) for slots in self.places.deltas]
        return {
            "methods": [item["method"] for item in found],
            "kept": [item["kept"] for item in found],
            "statistics": self.running_statistics().clone(),
            "travelling": as_lists(deltas),
            "peaks": self.peaks(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Modules.load_state_dict`."""
        self._number, self._state = state["step"] - 1, None
        self.running_statistics().copy_(state["statistics"])
        self.arena.tensor(self.places.peaks).copy_(torch.tensor(state["peaks"]))
        for slots, delta in zip(self.places.deltas, state["travelling"], strict=True):
            slots[self._number % 2].put(self.arena, *(delta or [None]))
        for rank, (method, kept) in enumerate(zip(state["methods"], state["kept"], strict=True)):
            self.places.file.put({"method": method, "kept": kept})
            self._tell(RESTORE, rank)


def _key(call: int, rank: int) -> int:
    """Return the name of a module's call; no module has two of a kind under way."""
    return 2 * rank + (call == BACKWARD)
