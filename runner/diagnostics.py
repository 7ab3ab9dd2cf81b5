"""Measurements of single layers during a run, written to `layers.jsonl` in the run folder.

The file has a line for each of `metrics.jsonl`, in the same order, with the same `epoch` and `updates`, and for each
diagnostic an object with a number per layer. `run.diagnostics` says which; their time is evaluation, not training.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.oracle import NetworkOracle
from runner.records import cut_lines, line

LAYERS = "layers.jsonl"


def spread(samples: int, count: int) -> Tensor:
    """Return at most `count` sample numbers of `samples`, evenly spread: the same for every seed."""
    count = min(samples, count)
    return torch.arange(count) * samples // count


class VarianceFactors:
    """The gradient's variance factor of each layer.

        M_k = (1/n) Σ_i ‖∇_k f_i(w)‖² / ‖(1/n) Σ_i ∇_k f_i(w)‖²

    1 where all samples agree, n or more where they cancel out; written as null where the mean is zero.
    Source: Huo, PhD thesis 2020, section 4.4.3 and figure 12, which takes all training samples; here a fixed part of
    them, without augmentation. Batch norm uses its running statistics, so that f_i depends on sample i alone.

    Args:
        oracle: the network; its flat gradient is overwritten.
        ids: the training samples to measure on.
        folder: the run folder.
        lines: how many lines of the file to keep, those of the checkpoint that the run goes on from.
        batch_size: samples at a time.

    Raises:
        ValueError: the network has a layer whose per-sample norms are not known.
    """

    def __init__(self, oracle: NetworkOracle, ids: Tensor, folder: Path, lines: int, *, batch_size: int) -> None:
        self.oracle = oracle
        self.ids = ids
        self.path = folder / LAYERS
        self.batch_size = batch_size
        cut_lines(self.path, lines)

    def __call__(self, row: dict[str, Any], weights: Tensor, statistics: Tensor) -> None:
        """Measure at flat weights and running statistics, and append a line that is on the disk on return."""
        factors = self.measure(weights, statistics).tolist()
        names = [layer.name for layer in self.oracle.replica.layers]
        record = {
            "epoch": row["epoch"],
            "updates": row["updates"],
            "variance_factor": dict(zip(names, factors, strict=True)),
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line(record))
            file.flush()
            os.fsync(file.fileno())

    def measure(self, weights: Tensor, statistics: Tensor) -> Tensor:
        """Return M_k at flat weights and running statistics, (layers,) float64."""
        replica, n = self.oracle.replica, len(self.ids)
        if weights.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(weights)
        replica.statistics.copy_(statistics)
        replica.gradient.zero_()
        replica.module.eval()
        squares = torch.zeros(len(replica.layers), n, device=replica.weights.device)
        for low in range(0, n, self.batch_size):
            ids = self.ids[low : low + self.batch_size]
            inputs, targets = self.oracle.split.batch(ids)
            self.oracle.backward(inputs, targets, len(ids) / n, squares[:, low : low + len(ids)])
        # Recorded are contributions to a mean over n samples, ∇_k f_i / n.
        above = squares.double().sum(1) * n
        pieces = [replica.gradient[layer.low : layer.high].double() for layer in replica.layers]
        return above / torch.stack([piece.square().sum() for piece in pieces])
