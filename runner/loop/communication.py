"""What the workers of a collective method cost and gain by communicating rarely: columns of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Layer
from runner.run_folder import columns


class Communication:
    """Seconds, virtual or measured, that combinations travelled, and how many of them computing hid."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._hidden = 0.0

    def add(self, seconds: float, hidden: float) -> None:
        """Count a combination that travelled for `seconds`, `hidden` of them (workers' mean) while they computed."""
        self._seconds += seconds
        self._hidden += hidden

    def columns(self) -> dict[str, float]:
        """Return both sums since the run's start."""
        return {columns.COMMUNICATION_SECONDS: self._seconds, columns.HIDDEN_SECONDS: self._hidden}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums as plain values."""
        return self.columns()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._seconds = state[columns.COMMUNICATION_SECONDS]
        self._hidden = state[columns.HIDDEN_SECONDS]


def distances(weights: Tensor, mean: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Return how far a worker's weights are from the workers' mean, ‖x_m − mean_j x_j‖: in all, then layer by layer.

    Returns:
        (1 + layers,).
    """
    difference = weights - mean
    # The whole and its layers in one vector: on processes one collective gathers all of them.
    pieces = [difference, *(difference[layer.low : layer.high] for layer in layers)]
    return torch.stack([torch.linalg.vector_norm(piece) for piece in pieces])


def disagreement(distances: Tensor) -> dict[str, float]:
    """Return mean and maximum of ‖x_m − mean_j x_j‖ over the workers, from the M distances."""
    return {columns.DISAGREEMENT_MEAN: float(distances.mean()), columns.DISAGREEMENT_MAX: float(distances.max())}
