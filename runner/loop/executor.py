"""What an executor is, and what the training control that it drives asks of those who write down and look on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from algorithms.base import Message
from runner.run_folder.timeline import Timeline


class MetricsLogger(Protocol):
    """What `TrainControl` needs of the run folder's writer."""

    def log(self, row: dict[str, Any], samples_per_second: float | None = None) -> None:
        """Write down an evaluation."""
        ...

    def progress(
        self, *, epoch: float, samples: int, train_loss: float | None = None, staleness: float | None = None
    ) -> None:
        """Show how far the run has come; called for every update."""
        ...


class Observer(Protocol):
    """Looks at what was evaluated, after the row is logged."""

    def __call__(self, row: dict[str, Any], weights: Tensor, statistics: Tensor, executor: Executor) -> None:
        """Look at the row, the flat weights and running statistics that it is about, and the executor."""
        ...


class Executor(ABC):
    """Runs a method to the end of its batches, and drives a `runner.loop.train_control.TrainControl` meanwhile.

    Attributes:
        timeline: what each worker did when.
        workers_lost: number of workers that the run went on without.
        bytes_sent: of all messages so far, as the method's layout declares them; of a shared memory, what was read and
            written. None if the run goes on from a checkpoint that does not say what was sent before it.
    """

    # Every executor has one: the control reads the staleness from it, and flushes it before a checkpoint.
    timeline: Timeline
    # Only a parameter server goes on without a worker.
    workers_lost: int = 0
    bytes_sent: int | None = 0

    def count_bytes(self, count: int) -> None:
        """Count what was sent, by whoever sent it: rank 0 counts for all."""
        if self.bytes_sent is not None:
            self.bytes_sent += count

    @abstractmethod
    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: see `runner.loop.stop.Stop`; the run ends earlier.
        """

    @abstractmethod
    def weights(self) -> Tensor:
        """Return the flat weights (n,) of the solution."""

    @abstractmethod
    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics (k,) that belong to the solution."""

    def columns(self) -> dict[str, float]:
        """Return what the executor adds to a row of metrics; nothing by default."""
        return {}

    @abstractmethod
    def method_states(self) -> Sequence[Message]:
        """Return the `state()` of the method's instances: of a server alone, or of every worker; not copies."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""


class NullLogger:
    """The log of a rank that owns no run folder."""

    def log(self, row: dict[str, Any], samples_per_second: float | None = None) -> None:
        """Write nothing."""

    def progress(
        self, *, epoch: float, samples: int, train_loss: float | None = None, staleness: float | None = None
    ) -> None:
        """Show nothing."""
