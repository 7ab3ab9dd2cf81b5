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
    FORWARD_SHARE,
    backward,
    counts_memory,
    extra_share,
    forward,
    memory_columns,
    restore_module,
)
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
        # A clock for each module; they meet only where one waits for another's message.
        self.now = [0.0] * workers
        self.step = 0
        # By module, the error gradient that it sent down last, and when that arrives; there is none at first.
        self.travelling: list[Tensor | None] = [None] * workers
        self.arrivals = [0.0] * workers

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
        load = size / self.batches.size
        # The draw is of a whole network's gradient, of which the module does its share.
        whole = [self.clock.compute_seconds(rank, self.step, load) for rank in range(self.workers)]
        seconds = [drawn * share for drawn, share in zip(whole, self.partition.work_shares, strict=True)]
        operations = self.partition.operations
        extra = [drawn * extra_share(m, operations) for drawn, m in zip(whole, self.methods, strict=True)]
        for method, stage in zip(self.methods, self.partition.stages, strict=True):
            stage.method = method if counts_memory(self.step, self.workers) else None
        # Computed at once, module by module; the clock is moved beside it. What travels from one iteration to the next
        # is in `travelling`.
        check = partial(check_module, self.methods[0], self.partition.outputs)
        forward(self.methods, self.partition.stages, features, self._seed, check)
        self._clock_forward(seconds, size)
        self.travelling = backward(self.methods, self.partition.stages, self.travelling, step, self._seed, check)
        self._clock_backward(seconds, extra, size)
        if self.directions is not None and exact is not None:
            self.directions.add(exact, [method.direction for method in self.methods], self.partition.pieces)
        self.control.advance(size, max(self.now), self.oracle.totals)

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

    def _wait(self, rank: int, until: float, sent: float) -> None:
        """Let a module wait for a message that was sent at `sent` and arrives at `until`."""
        now = self.now[rank]
        begin = min(max(now, sent), until)
        if now < begin:
            self.timeline.span(rank, "wait", now, begin)
        if max(now, begin) < until:
            self.timeline.span(rank, "transfer", max(now, begin), until)
        # A module that is later than the message finds it there.
        self.now[rank] = max(now, until)

    def _clock_forward(self, seconds: list[float], size: int) -> None:
        for rank in range(self.workers):
            if rank:
                sent = self.now[rank - 1]
                self._wait(rank, sent + self.clock.transfer_seconds(self.partition.nbytes(rank - 1, size)), sent)
            begin = self.now[rank]
            self.now[rank] += seconds[rank] * FORWARD_SHARE
            self.timeline.span(rank, "compute", begin, self.now[rank])

    def _clock_backward(self, seconds: list[float], extra: list[float], size: int) -> None:
        # Before this second no module goes backward, in this model; see the file's first lines.
        over = self.now[-1]
        # A copy: decoupled modules wait for what was sent in the iteration before, while this one is written down.
        # All modules have the same method, so the first one speaks for all.
        locked, arrivals = self.methods[0].locked, list(self.arrivals)
        for rank in reversed(range(self.workers)):
            # Sent and arrived at the same second: this is waiting alone, without a transfer.
            self._wait(rank, max(over, self.now[rank]), max(over, self.now[rank]))
            if rank < self.workers - 1:
                arrival = self.arrivals[rank + 1] if locked else arrivals[rank + 1]
                sent = arrival - self.clock.transfer_seconds(self.partition.nbytes(rank, size))
                self._wait(rank, max(arrival, self.now[rank]), max(sent, self.now[rank]))
            # The last module replays nothing: its forward pass is of the same iteration.
            again = FORWARD_SHARE * self.methods[0].replays if rank < self.workers - 1 else 0.0
            begin = self.now[rank]
            self.now[rank] += seconds[rank] * (1 - FORWARD_SHARE + again) + extra[rank]
            self.timeline.span(rank, "compute", begin, self.now[rank])
            if rank:
                self.arrivals[rank] = self.now[rank] + self.clock.transfer_seconds(
                    self.partition.nbytes(rank - 1, size)
                )

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
            "arrivals": self.arrivals,
            "now": self.now,
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
        self.arrivals, self.now = list(state["arrivals"]), list(state["now"])
        self.step = state["step"]
        if self.directions is not None and state["directions"] is not None:
            self.directions.load_state_dict(state["directions"])
        self.timeline.load_state_dict(state["activity"])
