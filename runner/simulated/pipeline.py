"""The modules of a pipeline method in one process, on a virtual clock.

A module's share of `cluster.compute.seconds` is its share of the network's multiply-adds; a third of it is its forward
pass, two thirds its backward pass. Features go forward through the chain, module by module. Ours, after algorithm 11:
the backward passes of an iteration begin when its forward pass is over in the last module, for the decoupled methods in
all modules at once, for a locked one module by module; a module that replays needs another forward pass. So with equal
modules and a free network an iteration takes T_F + T_B locked and T_F + T_B/K decoupled (thesis, table 3). Features and
error gradients travel as messages of their bytes. What a method computes besides, as a synthesizer's guess and what it
learns, takes the seconds of its multiply-adds, and belongs to the backward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor

from algorithms.base import Message, Step
from algorithms.pipeline import Features, Pipeline
from runner.gradients.directions import Directions
from runner.gradients.partition import Partition
from runner.gradients.randomness import seed_generators
from runner.loop.messages import check_module
from runner.loop.pipeline_schedule import (
    backward,
    counts_memory,
    forward,
    memory_columns,
    restore_module,
)
from runner.simulated.pipeline_clock import PipelineClock
from runner.simulated.virtual_executor import VirtualExecutor, VirtualParts


class SimulatedPipeline(VirtualExecutor):
    """Run a pipeline method on simulated modules.

    Args:
        methods: one instance for each module; started here.
        partition: the network in modules.
        workers: number of modules K.
        directions: compares gradients with those of back-propagation, None to save the effort.
        parts: see `VirtualExecutor`; the oracle's replica has the weights of all modules.
    """

    def __init__(
        self,
        methods: list[Pipeline],
        partition: Partition,
        *,
        workers: int,
        directions: Directions | None = None,
        **parts: Unpack[VirtualParts],
    ) -> None:
        super().__init__(**parts)
        self.methods = methods
        self.partition = partition
        self.workers = workers
        self.directions = directions
        for rank, (method, stage) in enumerate(zip(methods, partition.stages, strict=True)):
            method.setup(stage.weights, partition.stage_info(rank))
            method.keeps_direction = directions is not None
        self.times = PipelineClock(
            self.clock, self.timeline, methods=methods, partition=partition, batch_size=self.batches.size
        )
        self.step = 0
        # By module, the error gradient that it sent down last; there is none at first.
        self.travelling: list[Tensor | None] = [None] * workers

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        control = self.control
        control.start()
        while self.step < len(self.batches):
            self._step()
            self.step += 1
            finished = self.step == len(self.batches)
            if control.due(finished):
                # An evaluation puts these into the replica itself, where the modules' weights are.
                control.evaluate(self.weights(), self.running_statistics(), self.oracle.totals, self, finished)
        control.pause()

    def _step(self) -> None:
        rate = self.control.rate()
        step = Step(lr=rate.lr, decay=rate.decay)
        # Before the modules' own passes, after which the weights are others.
        exact = None if self.directions is None else self._exact(self.directions)
        features = self._features(self.step)
        size = len(features.targets)
        for method, stage in zip(self.methods, self.partition.stages, strict=True):
            stage.method = method if counts_memory(self.step, self.workers) else None
        # Computed at once, module by module; the clock is moved beside it. What travels from one iteration to the next
        # is in `travelling`.
        check = partial(check_module, self.methods[0], self.partition.outputs)
        forward(self.methods, self.partition.stages, features, self._seed, check)
        self.travelling = backward(self.methods, self.partition.stages, self.travelling, step, self._seed, check)
        self.times.iterate(self.step, size)
        if self.directions is not None and exact is not None:
            self.directions.add(exact, [method.direction for method in self.methods], self.partition.pieces)
        self.control.advance(size, self.times.seconds, self.oracle.totals)

    def _features(self, number: int) -> Features:
        """Return what goes into the first module in iteration `number`, also where that was some iterations ago."""
        batch = self.batches.batch(number)
        inputs, targets = self.oracle.split.batch(batch.ids, seed=self.oracle.seed, epoch=batch.epoch)
        return Features(number, self.oracle.arranged(inputs), targets)

    def _exact(self, directions: Directions) -> Tensor:
        """Return the gradients that the modules' directions of this iteration are compared with."""
        numbers = [self.step - method.batch_lag for method in self.methods]
        return directions.exact(self.partition.stages, numbers, self._features)

    def _seed(self, call: str, rank: int) -> None:
        seed_generators(self.oracle.device, self.batches.seed, call, self.step, rank)

    def columns(self) -> dict[str, float]:
        """Return the modules' peaks of memory."""
        return memory_columns([stage.peak for stage in self.partition.stages])

    def sufficient_directions(self) -> dict[str, float]:
        """Return σ of each module since the last call, see `runner.gradients.directions`."""
        assert self.directions is not None
        return self.directions.take()

    def weights(self) -> Tensor:
        """Return the flat weights of all modules."""
        return self.oracle.replica.weights

    def running_statistics(self) -> Tensor:
        """Return the running batch-norm statistics of all modules (k,)."""
        return torch.cat([stage.running for stage in self.partition.stages])

    def method_states(self) -> list[Message]:
        """Return the method's state of every module."""
        return [method.state() for method in self.methods]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on; a graph is kept as what it is made of."""
        return {
            "methods": [method.state() for method in self.methods],
            "kept": [method.pending() for method in self.methods],
            "statistics": self.running_statistics(),
            "totals": self.oracle.totals,
            # Lists of none or one: a file of tensors alone has no None.
            "travelling": [[] if delta is None else [delta] for delta in self.travelling],
            "arrivals": self.times.arrivals,
            "now": self.times.now,
            "step": self.step,
            "peaks": [stage.peak for stage in self.partition.stages],
            "directions": None if self.directions is None else self.directions.state_dict(),
            "activity": self.timeline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        device = self.oracle.device
        # One flat vector in the file, cut into the modules' pieces again.
        running = state["statistics"].to(device).split([len(stage.running) for stage in self.partition.stages])
        for rank, (method, stage) in enumerate(zip(self.methods, self.partition.stages, strict=True)):
            # Activations that restoring records again are not a new peak of memory.
            stage.method = None
            restore_module(method, stage, state, rank, device)
            stage.running.copy_(running[rank])
            stage.peak = state["peaks"][rank]
        self.oracle.totals.copy_(state["totals"])
        self.travelling = [delta[0].to(device) if delta else None for delta in state["travelling"]]
        self.times.arrivals, self.times.now = list(state["arrivals"]), list(state["now"])
        self.step = state["step"]
        if self.directions is not None and state["directions"] is not None:
            self.directions.load_state_dict(state["directions"])
        self.timeline.load_state_dict(state["activity"])
