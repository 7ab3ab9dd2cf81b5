"""Loss and error of flat weights on a data split: the test or the validation split."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seeded


class Score(NamedTuple):
    """Mean loss and error in percent over a split; where asked for, error among the five best guesses and perplexity.

    There is no error if the network guesses no classes.
    """

    loss: float
    error: float | None
    error_top5: float | None = None
    perplexity: float | None = None


class Evaluator:
    """Evaluate weights with the network of an oracle; leaves its replica holding what was evaluated.

    Args:
        oracle: network and precision.
        split: samples to evaluate on.
        batch_size: samples at a time.
        top5: score the five best guesses too.
        perplexity: report exp(loss) too.
    """

    def __init__(
        self, oracle: NetworkOracle, split: Any, *, batch_size: int, top5: bool = False, perplexity: bool = False
    ) -> None:
        self.oracle = oracle
        self.split = split
        self.batch_size = batch_size
        self.top5 = top5
        self.perplexity = perplexity

    @torch.no_grad()
    def __call__(self, weights: Tensor, statistics: Tensor) -> Score:
        """Return the score of flat weights (n,) with flat batch-norm running statistics (k,)."""
        # Attention with dropout in a function drops also in evaluation, unless its author thought of it: the same units
        # each time, so that a score is a function of the weights.
        with seeded(self.oracle.device, self.oracle.seed, "evaluation"):
            return self._score(weights, statistics)

    def _score(self, weights: Tensor, statistics: Tensor) -> Score:
        replica = self.oracle.replica
        # Weights that live in the replica need no copy.
        if weights.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(weights)
        replica.statistics.copy_(statistics)
        # Not set back at the end: training sets its own mode before each pass.
        module: Any = replica.module.eval()
        # On the device and in float64: read once at the end, and sums of many losses lose no digits.
        totals = torch.zeros(3, dtype=torch.float64, device=replica.weights.device)
        n = len(self.split)
        streams = hasattr(self.split, "expect")
        for low in range(0, n, self.batch_size):
            ids = torch.arange(low, min(low + self.batch_size, n))
            # This batch again and the next: what is announced already is not decoded a second time.
            if streams and low + len(ids) < n:
                self.split.expect(ids)
                self.split.expect(torch.arange(low + len(ids), min(low + 2 * self.batch_size, n)))
            inputs, targets = self.split.batch(ids)
            outputs = self.oracle.outputs(inputs)
            # Weighted by samples: the last batch is short, and a mean of means would count its samples more.
            totals[0] += module.loss(outputs, targets) * len(ids)
            totals[1] += module.errors(outputs, targets)
            if self.top5:
                totals[2] += module.errors(outputs, targets, guesses=5)
        loss, errors, errors_top5 = (totals / n).tolist()
        if not getattr(module, "classifies", True):
            return Score(loss, None)
        perplexity = _exp(loss) if self.perplexity else None
        return Score(loss, 100 * errors, 100 * errors_top5 if self.top5 else None, perplexity)


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
