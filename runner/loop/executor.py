"""What the training control asks of those around it: the executor that drives it, who writes down and who looks on."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from runner.run_folder.timeline import Activity


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


class Executor(Protocol):
    """What `TrainControl` needs of the executor that drives it."""

    activity: Activity

    def columns(self) -> dict[str, float]:
        """Return what the executor adds to a row."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        ...


class NullLogger:
    """The log of a rank that owns no run folder."""

    def log(self, row: dict[str, Any], samples_per_second: float | None = None) -> None:
        """Write nothing."""

    def progress(
        self, *, epoch: float, samples: int, train_loss: float | None = None, staleness: float | None = None
    ) -> None:
        """Show nothing."""
