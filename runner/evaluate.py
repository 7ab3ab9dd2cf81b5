"""Test loss and error of flat weights on a data split."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from runner.oracle import NetworkOracle


class Score(NamedTuple):
    """Mean loss, and error in percent, over a split."""

    loss: float
    error: float


class Evaluator:
    """Evaluate weights with the network of an oracle; leaves its replica holding what was evaluated.

    Args:
        oracle: network and precision.
        split: samples to evaluate on.
        batch_size: samples at a time.
    """

    def __init__(self, oracle: NetworkOracle, split: Any, *, batch_size: int) -> None:
        self.oracle = oracle
        self.split = split
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, weights: Tensor, statistics: Tensor) -> Score:
        """Return the score of flat weights (n,) with flat batch-norm running statistics (k,)."""
        replica = self.oracle.replica
        if weights.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(weights)
        replica.statistics.copy_(statistics)
        replica.module.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=replica.weights.device)
        n = len(self.split)
        for low in range(0, n, self.batch_size):
            ids = torch.arange(low, min(low + self.batch_size, n))
            inputs, targets = self.split.batch(ids)
            loss, errors = self.oracle.loss(inputs, targets)
            totals[0] += loss * len(ids)
            totals[1] += errors
        loss, errors = (totals / n).tolist()
        return Score(loss, 100 * errors)
