"""What a compute process does for a simulated pipeline: the calls of the modules that are its own.

Weights, running statistics, peaks of memory and what modules send each other lie in the shared memory; the rest of a
module's state, as its tapes, is in its process alone and is handed over where it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from algorithms.base import Fields, Message, Step
from algorithms.pipeline import Pipeline
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.loop.batches import Batches
from runner.loop.messages import check_module
from runner.loop.pipeline_schedule import (
    Pass,
    counts_memory,
    first_features,
    later_features,
    restore_module,
    seed_pass,
)
from runner.simulated.arena import Arena, Place, SharedFile
from runner.simulated.compute_pool import READY
from runner.simulated.compute_process import Task
from runner.simulated.tensor_slot import TensorSlot
from runner.simulated.transfers import Transfers

SETUP, FORWARD, BACKWARD, SAVE, RESTORE = range(READY + 1, READY + 6)
"""What a process is asked to do, besides to be there."""


class ModulePlaces(NamedTuple):
    """What is where in the shared memory.

    Attributes:
        weights: of all modules (n,).
        running: running batch-norm statistics of all modules (k,).
        peaks: see `PipelineStage.peak` (modules,).
        features: by module but the last, what it sends the next one, for each micro-batch of an iteration.
        deltas: by module, what it sends the one before, pass after pass in turn, see `turn`: one is written while
            another may still be read.
        file: for a module's state, when it is asked for.
    """

    weights: Place
    running: Place
    peaks: Place
    features: Sequence[Sequence[TensorSlot]]
    deltas: Sequence[Sequence[TensorSlot]]
    file: SharedFile

    def turn(self, rank: int, passed: int) -> TensorSlot:
        """Return where a module's backward pass puts what it sends; passes are counted from the run's first one."""
        return self.deltas[rank][passed % len(self.deltas[rank])]


class ModuleTasks:
    """The modules of a compute process.

    Args:
        make_method: returns an unstarted instance of the method.
        partition: the network in modules.
        oracle: of this process' own replica.
        batches: the run's batches.
        transfers: of this process, which computes on the shared memory itself.
        arena: the shared memory.
        places: what is where in it.
    """

    def __init__(
        self,
        make_method: Callable[[], Pipeline],
        partition: Partition,
        *,
        oracle: NetworkOracle,
        batches: Batches,
        transfers: Transfers,
        arena: Arena,
        places: ModulePlaces,
    ) -> None:
        self.make_method = make_method
        self.partition = partition
        self.oracle = oracle
        self.batches = batches
        self.transfers = transfers
        self.arena = arena
        self.places = places
        self.weights, self.running = arena.tensor(places.weights), arena.tensor(places.running)
        self.peaks = arena.tensor(places.peaks)
        self.methods: dict[int, Pipeline] = {}
        # The first backward pass from an error gradient imports it, which takes a second of training.
        importlib.import_module("torch.fx.experimental.symbolic_shapes")

    def fields(self, call: int, numbers: Sequence[int]) -> Fields:
        """See `Tasks.fields`: what a module makes has its own place."""
        return {}

    def perform(self, task: Task) -> Message | None:
        """See `Tasks.perform`."""
        if task.call == READY:
            return None
        rank, *numbers = task.numbers
        if rank not in self.methods:
            self.methods[rank] = self._set_up(rank)
        if task.call == FORWARD:
            number, piece = numbers
            self._forward(rank, number, piece)
        elif task.call == BACKWARD:
            (number, piece), (lr, decay) = numbers, task.reals
            self._backward(rank, number, piece, Step(lr=lr, decay=decay))
        elif task.call == SAVE:
            self.places.file.put(self._state(rank))
        elif task.call == RESTORE:
            self._restore(rank, self.places.file.take())
        return None

    def _set_up(self, rank: int) -> Pipeline:
        stage = self.partition.stages[rank]
        low, high, first, end = self.partition.pieces[rank]
        stage.weights, stage.running = self.weights[low:high], self.running[first:end]
        method = self.make_method()
        method.setup(stage.weights, self.partition.stage_info(rank))
        return method

    def _forward(self, rank: int, number: int, piece: int) -> None:
        method, stage = self.methods[rank], self.partition.stages[rank]
        stage.method = method if counts_memory(number, len(self.partition.stages)) else None
        batch, pieces = self.batches.batch(number), method.micro_batches
        if rank:
            inputs = self.places.features[rank - 1][piece].take(self.arena)
            assert inputs is not None
            features = later_features(self.oracle, batch, number, inputs, piece, pieces)
        else:
            features = first_features(self.oracle, batch, number, piece, pieces)
        seed_pass(self.oracle, self.batches.seed, number, Pass(rank, "forward", piece))
        outputs = method.forward(stage, features)
        check_module(method, self.partition.outputs, "forward", rank, outputs)
        if not method.last:
            self.places.features[rank][piece].put(self.arena, outputs)
        self.peaks[rank] = stage.peak

    def _backward(self, rank: int, number: int, piece: int, step: Step) -> None:
        method, stage = self.methods[rank], self.partition.stages[rank]
        passed = number * method.micro_batches + piece
        # In this pass, or in the one before.
        sent = passed if method.locked else passed - 1
        delta = None if method.last else self.places.turn(rank + 1, sent).take(self.arena)
        seed_pass(self.oracle, self.batches.seed, number, Pass(rank, "backward", piece))
        down = method.backward(stage, delta, step)
        check_module(method, self.partition.outputs, "backward", rank, down)
        if rank:
            self.places.turn(rank, passed).put(self.arena, down)
        self.peaks[rank] = stage.peak

    def _state(self, rank: int) -> dict[str, Any]:
        """Return copies of a module's state, because a view would be saved together with its whole memory."""
        method = self.methods[rank]
        return {
            "method": {name: tensor.clone() for name, tensor in method.state().items()},
            "kept": [{name: tensor.clone() for name, tensor in item.items()} for item in method.pending()],
        }

    def _restore(self, rank: int, saved: dict[str, Any]) -> None:
        method, stage = self.methods[rank], self.partition.stages[rank]
        # Activations that restoring records again are not a new peak of memory.
        stage.method = None
        state = {"methods": {rank: saved["method"]}, "kept": {rank: saved["kept"]}}
        restore_module(method, stage, state, rank, torch.device("cpu"))
        stage.peak = int(self.peaks[rank])
