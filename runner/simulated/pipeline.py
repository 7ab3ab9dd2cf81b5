"""The modules of a pipeline method on a virtual clock.

A module's share of `cluster.compute.seconds` is its share of the network's multiply-adds; a third of it is its forward
pass, two thirds its backward pass. Features go forward through the chain, module by module. Ours, after algorithm 11:
the backward passes of an iteration begin when its forward pass is over in the last module, for the decoupled methods in
all modules at once, for a locked one module by module; a module that replays needs another forward pass. So with equal
modules and a free network an iteration takes T_F + T_B locked and T_F + T_B/K decoupled (thesis, table 3). The modules
of GPipe and PipeDream (`Pipeline.waits_for_last` is false) go backward as soon as they have an error gradient, and in
the first iterations, while there is none, do nothing. Features and error gradients travel as messages of their bytes.
What a method computes besides, as a synthesizer's guess and what it learns, takes the seconds of its multiply-adds, and
belongs to the backward pass.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, Unpack

from torch import Tensor

from algorithms.base import Message, Step
from algorithms.pipeline import Features, Pipeline
from runner.gradients.directions import Directions
from runner.gradients.partition import Partition
from runner.loop.pipeline_schedule import first_features, iteration_bytes, memory_columns
from runner.loop.stop import Stop
from runner.simulated.compute_pool import PoolOptions
from runner.simulated.pipeline_clock import PipelineClock
from runner.simulated.pipeline_modules import LocalModules, Modules
from runner.simulated.pooled_modules import PooledModules
from runner.simulated.virtual_executor import VirtualExecutor, VirtualParts


class SimulatedPipeline(VirtualExecutor):
    """Run a pipeline method on simulated modules.

    Args:
        methods: one instance for each module; started here.
        partition: the network in modules.
        workers: number of modules K.
        directions: compares gradients with those of back-propagation, None to save the effort; only in one process.
        compute: other processes that compute; None to compute in this one.
        parts: see `VirtualExecutor`; the oracle's replica has the weights of all modules.
    """

    def __init__(
        self,
        methods: list[Pipeline],
        partition: Partition,
        *,
        workers: int,
        directions: Directions | None = None,
        compute: PoolOptions | None = None,
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
        self.modules: Modules
        if compute is None:
            self.modules = LocalModules(methods, partition, batches=self.batches)
        else:
            self.modules = PooledModules(
                partition,
                compute,
                methods=methods,
                batch_size=self.batches.size,
                totals=self.oracle.totals,
            )

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        with closing(self.modules):
            self.modules.start()
            self._run()

    def _run(self) -> None:
        control = self.control
        control.start()
        while self.step < len(self.batches):
            self._step()
            self.step += 1
            finished = self.step == len(self.batches)
            if control.due(finished):
                self.modules.finish()
                # An evaluation puts these into the replica itself, where one process has the modules' weights.
                control.evaluate(self.weights(), self.running_statistics(), self.oracle.totals, self, finished)
        control.pause()

    def _step(self) -> None:
        rate = self.control.rate()
        # Before the modules' own passes, after which the weights are others.
        exact = None if self.directions is None else self._exact(self.directions)
        size = len(self.batches.batch(self.step).ids)
        # The clock is moved beside what is computed, or being computed.
        self.modules.iterate(self.step, Step(lr=rate.lr, decay=rate.decay))
        self.times.iterate(self.step, size)
        self.count_bytes(iteration_bytes(self.partition, size))
        if self.directions is not None and exact is not None:
            self.directions.add(exact, [method.direction for method in self.methods], self.partition.pieces)
        if self.step == 0:
            # The control keeps the loss of the first update, which is that of one process whoever computes it.
            self.modules.finish()
        try:
            self.control.advance(size, self.times.seconds, self.oracle.totals)
        except Stop:
            # A run that stops here has made this update.
            self.modules.finish()
            raise

    def _exact(self, directions: Directions) -> Tensor:
        """Return the gradients that the modules' directions of this iteration are compared with."""
        numbers = [self.step - method.batch_lag for method in self.methods]
        return directions.exact(self.partition.stages, numbers, self._features)

    def _features(self, number: int) -> Features:
        return first_features(self.oracle, self.batches.batch(number), number)

    def columns(self) -> dict[str, float]:
        """Return the modules' peaks of memory."""
        return memory_columns(self.modules.peaks())

    def sufficient_directions(self) -> dict[str, float]:
        """Return σ of each module since the last call, see `runner.gradients.directions`."""
        assert self.directions is not None
        return self.directions.take()

    def weights(self) -> Tensor:
        """Return the flat weights of all modules."""
        return self.modules.weights()

    def running_statistics(self) -> Tensor:
        """Return the running batch-norm statistics of all modules (k,)."""
        return self.modules.running_statistics()

    def method_states(self) -> list[Message]:
        """Return the method's state of every module."""
        return self.modules.states()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            **self.modules.state_dict(),
            "totals": self.oracle.totals,
            "arrivals": self.times.arrivals,
            "now": self.times.now,
            "step": self.step,
            "directions": None if self.directions is None else self.directions.state_dict(),
            "activity": self.timeline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        self.modules.load_state_dict(state)
        self.oracle.totals.copy_(state["totals"])
        self.times.arrivals, self.times.now = list(state["arrivals"]), list(state["now"])
        self.step = state["step"]
        if self.directions is not None and state["directions"] is not None:
            self.directions.load_state_dict(state["directions"])
        self.timeline.load_state_dict(state["activity"])
