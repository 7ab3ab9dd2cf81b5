"""The modules of a simulated pipeline: who computes their passes, and what an executor asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from algorithms.base import Message, Step
from algorithms.pipeline import Features, Pipeline
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.loop.batches import Batches
from runner.loop.messages import check_module
from runner.loop.pipeline_schedule import counts_memory, first_features, iterate, restore_module, seed_pass


class Modules(Protocol):
    """Takes all modules through an iteration, wherever they are computed."""

    def start(self) -> None:
        """Be ready; called before the run's clock of training starts."""
        ...

    def close(self) -> None:
        """Compute no more."""
        ...

    def iterate(self, number: int, step: Step) -> None:
        """Take iteration `number` forward, which is counted now, and begin at least its backward passes."""
        ...

    def finish(self) -> None:
        """Wait for the backward passes; called before anything but `iterate`."""
        ...

    def weights(self) -> Tensor:
        """Return the flat weights of all modules (n,)."""
        ...

    def running_statistics(self) -> Tensor:
        """Return the running batch-norm statistics of all modules (k,)."""
        ...

    def peaks(self) -> list[int]:
        """Return each module's peak of memory."""
        ...

    def states(self) -> list[Message]:
        """Return the method's state of every module; none if it is lost with a process."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what later iterations depend on; a graph is kept as what it is made of."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned after `state["step"]` iterations."""
        ...


class LocalModules:
    """Compute in the run's own process, module by module.

    Args:
        methods: one instance for each module, set up.
        partition: the network in modules; its oracle counts into the run's totals by itself.
        batches: the run's batches.
    """

    def __init__(self, methods: Sequence[Pipeline], partition: Partition, *, batches: Batches) -> None:
        self.methods = methods
        self.partition = partition
        self.oracle: NetworkOracle = partition.oracle
        self.batches = batches
        # By module, the error gradient that it sent down last; there is none at first.
        self.travelling: list[Tensor | None] = [None] * len(methods)

    def start(self) -> None:
        """See `Modules.start`."""

    def close(self) -> None:
        """See `Modules.close`."""

    def iterate(self, number: int, step: Step) -> None:
        """See `Modules.iterate`."""
        stages = self.partition.stages
        features = self.features(number)
        for method, stage in zip(self.methods, stages, strict=True):
            stage.method = method if counts_memory(number, len(stages)) else None
        check = partial(check_module, self.methods[0], self.partition.outputs)
        seed = partial(seed_pass, self.oracle, self.batches.seed, number)
        self.travelling = iterate(self.methods, stages, features, self.travelling, step, seed, check)

    def features(self, number: int) -> list[Features]:
        """Return what goes into the first module in iteration `number`, of each micro-batch."""
        pieces = self.methods[0].micro_batches
        batch = self.batches.batch(number)
        return [first_features(self.oracle, batch, number, piece, pieces) for piece in range(pieces)]

    def finish(self) -> None:
        """See `Modules.finish`."""

    def weights(self) -> Tensor:
        """See `Modules.weights`."""
        return self.oracle.replica.weights

    def running_statistics(self) -> Tensor:
        """See `Modules.running_statistics`."""
        return torch.cat([stage.running for stage in self.partition.stages])

    def peaks(self) -> list[int]:
        """See `Modules.peaks`."""
        return [stage.peak for stage in self.partition.stages]

    def states(self) -> list[Message]:
        """See `Modules.states`."""
        return [method.state() for method in self.methods]

    def state_dict(self) -> dict[str, Any]:
        """See `Modules.state_dict`."""
        return {
            "methods": self.states(),
            "kept": [method.pending() for method in self.methods],
            "statistics": self.running_statistics(),
            "travelling": as_lists(self.travelling),
            "peaks": self.peaks(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Modules.load_state_dict`."""
        device, stages = self.oracle.device, self.partition.stages
        # One flat vector in the file, cut into the modules' pieces again.
        running = state["statistics"].to(device).split([len(stage.running) for stage in stages])
        for rank, (method, stage) in enumerate(zip(self.methods, stages, strict=True)):
            # Activations that restoring records again are not a new peak of memory.
            stage.method = None
            restore_module(method, stage, state, rank, device)
            stage.running.copy_(running[rank])
            stage.peak = state["peaks"][rank]
        self.travelling = [delta[0].to(device) if delta else None for delta in state["travelling"]]


def as_lists(deltas: Sequence[Tensor | None]) -> list[list[Tensor]]:
    """Return lists of none or one: a file of tensors alone has no None."""
    return [[] if delta is None else [delta] for delta in deltas]
