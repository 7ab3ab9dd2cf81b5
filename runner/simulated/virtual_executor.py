"""What executors on one virtual clock are made of; a parameter server has its clock in the source of its events."""

from __future__ import annotations

from typing import TypedDict

from runner.gradients.oracle import NetworkOracle
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.executor import Executor
from runner.loop.train_control import TrainControl
from runner.run_folder.timeline import Timeline


class VirtualParts(TypedDict):
    """The arguments of `VirtualExecutor`, as those who derive from it pass them on."""

    oracle: NetworkOracle
    batches: Batches
    clock: Clock
    control: TrainControl
    timeline: Timeline


class VirtualExecutor(Executor):
    """Run a method in one process, its workers' seconds on a virtual clock.

    Args:
        oracle: gradients of the whole network.
        batches: the run's batches: of all workers together for a collective method, which cuts them into shares.
        clock: virtual durations.
        control: counts, evaluation, checkpoints.
        timeline: what each worker did when.
    """

    def __init__(
        self, *, oracle: NetworkOracle, batches: Batches, clock: Clock, control: TrainControl, timeline: Timeline
    ) -> None:
        self.oracle = oracle
        self.batches = batches
        self.clock = clock
        self.control = control
        self.timeline = timeline
