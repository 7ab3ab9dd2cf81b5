"""The modules of a simulated pipeline side by side in compute processes: module k in process k mod N.

A module's tapes and optimizer stay in its process, which does with them what one process would do, in the same order:
only modules that do not wait for each other's messages overlap. Of a decoupled method these are the backward passes of
an iteration, and the forward passes of the next one, which begin where they can: a module goes forward once its
backward pass is over, and its features are there. A batch is through all modules before the next one goes into the
first: so the loss is known before a weight moves that it does not depend on, and the run stops where one process would.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Message, Step
from algorithms.pipeline import Pipeline
from runner.gradients.partition import Partition
from runner.loop.pipeline_schedule import order_of_passes, piece_sizes
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
        methods: one instance for each module, set up, for what they say of themselves.
        batch_size: samples of a full batch.
        totals: of the run, sums of losses, errors and samples (3,).
    """

    def __init__(
        self,
        partition: Partition,
        options: PoolOptions,
        *,
        methods: Sequence[Pipeline],
        batch_size: int,
        totals: Tensor,
    ) -> None:
        self.locked, self.pieces = methods[0].locked, methods[0].micro_batches
        self.order = order_of_passes(methods)
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
        samples = piece_sizes(batch_size, self.pieces)[0]
        capacities = [samples * torch.Size(shape).numel() for shape in partition.outputs[:-1]]
        offset, slots = end_of(state, 0), list[list[TensorSlot]]()
        # In turn between modules: features, and error gradients, of which one waits for the next iteration.
        for capacity, count in itertools.product(capacities, (self.pieces, max(2, self.pieces))):
            slots.append([])
            for _ in range(count):
                slots[-1].append(TensorSlot.at(offset, capacity))
                offset = slots[-1][-1].end
        nowhere = TensorSlot.at(offset, 0)
        self.places = ModulePlaces(**state, features=slots[::2], deltas=[[nowhere], *slots[1::2]], file=SharedFile())
        # A place for every call that may be under way: what modules make lies elsewhere, so these are small.
        k = tensors["running"].numel()
        size = largest_result([{}], k)
        results = [nowhere.end + number * size for number in range(2 * len(self.ranks))]
        self.arena = Arena(results[-1] + size)
        for name, tensor in self.arena.tensors(state).items():
            tensor.copy_(tensors[name])
        for slot in (nowhere, *itertools.chain(*slots)):
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
        if self.locked:
            # In turn, as they would be in one process: modules of one batch wait for each other anyway.
            for rank, name, piece in self.order:
                call = FORWARD if name == "forward" else BACKWARD
                self._begin(call, rank, piece, step)
                self._take(call, rank)
            return
        for piece in range(self.pieces):
            self._alternate(piece, step)

    def _alternate(self, piece: int, step: Step) -> None:
        """Take a micro-batch through modules that go forward and backward in turn, and need not wait for each other."""
        last = self.ranks[-1]
        for rank in self.ranks:
            # Then its weights are those of this iteration, and what it sent down before is there.
            self._take(BACKWARD, rank)
            if rank:
                self._begin(BACKWARD, rank - 1, piece, step)
                self._take(FORWARD, rank - 1)
            self._begin(FORWARD, rank, piece)
        # It needs no message, and comes after the forward pass, which its process has got first.
        self._begin(BACKWARD, last, piece, step)
        self._take(FORWARD, last)
        if self._counts_backward:
            self._take(BACKWARD, last)

    def _begin(self, call: int, rank: int, piece: int, step: Step | None = None) -> None:
        reals = () if step is None else (step.lr, step.decay)
        self.pool.submit(_key(call, rank), Task(call, (rank, self._number, piece), reals), self._process(rank))
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

    @property
    def _passed(self) -> int:
        """Number of the last backward pass of each module, from the run's first one."""
        return (self._number + 1) * self.pieces - 1

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
        deltas = [self.places.turn(rank, self._passed).take(self.arena) for rank in self.ranks]
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
        for rank, delta in zip(self.ranks, state["travelling"], strict=True):
            self.places.turn(rank, self._passed).put(self.arena, *(delta or [None]))
        for rank, (method, kept) in enumerate(zip(state["methods"], state["kept"], strict=True)):
            self.places.file.put({"method": method, "kept": kept})
            self._tell(RESTORE, rank)


def _key(call: int, rank: int) -> int:
    """Return the name of a module's call; no module has two of a kind under way."""
    return 2 * rank + (call == BACKWARD)
