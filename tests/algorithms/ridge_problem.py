"""A small ridge regression for tests: an oracle of a method, without a runner's cluster, and its solution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from algorithms.base import Batch, Problem
from data.base import Split
from models.objective import RowObjective
from models.pca_step import PCAStep
from models.ridge import Ridge
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica


class Small:
    """n samples of d features in float32, of norm about `scale_i`, and a model on them.

    Args:
        n: samples.
        d: features.
        workers: M.
        batch: H.
        scales: of the samples, for badly scaled problems.
        model: built on them; ridge regression by default.
    """

    def __init__(
        self, n: int, d: int, workers: int, batch: int, scales: Tensor | None = None, model: RowObjective | None = None
    ) -> None:
        generator = torch.Generator().manual_seed(3)
        self.x = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
        if scales is not None:
            self.x = self.x * scales[:, None]
        truth = torch.randn(d, generator=generator)
        self.targets = (self.x @ truth + 0.1 * torch.randn(n, generator=generator) > 0).long()
        self.model = Ridge(shape=(d,), classes=2) if model is None else model
        self.oracle = NetworkOracle(Replica(self.model), Split(self.x, self.targets), seed=0)
        self.problem = Problem(n, d, workers, batch, self.model.scalar)

    def batch(self, number: int, worker: int = 0) -> Batch:
        """Return H samples drawn from a worker's shard."""
        shard = self.problem.shard(worker)
        pool = torch.arange(shard.start, shard.stop)
        generator = torch.Generator().manual_seed(number)
        return Batch(number, 0, pool[torch.randint(len(pool), (self.problem.batch,), generator=generator)], pool)

    def solution(self, weight_decay: float) -> np.ndarray:
        """Return w* in float64."""
        x, y = self.x.double().numpy(), 2.0 * self.targets.numpy() - 1
        n, d = x.shape
        return np.linalg.solve(x.T @ x / n + weight_decay * np.eye(d), x.T @ y / n)


def pca(n: int, d: int, mu: float, weight_decay: float) -> PCAStep:
    """Return the PCA step's model."""
    return PCAStep(shape=(d,), classes=1, mu=mu, weight_decay=weight_decay)
