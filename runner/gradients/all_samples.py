"""All samples of a training set as a matrix, in float64 and a chunk at a time: for sums over the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from runner.gradients.rows import rows_of

CHUNK = 8192
"""Samples at a time."""
CHUNK_BYTES = 2**30
"""Most memory of a dense chunk in float64: samples of very many features come in shorter chunks."""


class AllSamples:
    """The samples of a split, in their order, so that sums over them have the same bits in every process.

    Args:
        split: training samples.
        features: d.
    """

    def __init__(self, split: Any, features: int) -> None:
        self.split = split
        self.features = features
        self.chunk = max(1, min(CHUNK, CHUNK_BYTES // (8 * features)))

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """Yield sample numbers, samples (B, d) in float64, dense or compressed, and targets."""
        for ids in torch.arange(len(self.split)).split(self.chunk):
            x, targets = rows_of(self.split, ids)
            yield ids, x.double(), targets

    @property
    def chunks(self) -> int:
        """How many times `__iter__` yields."""
        return -(-len(self) // self.chunk)

    @property
    def nbytes(self) -> int:
        """What a pass over the samples reads from memory; 0 if the split does not say."""
        return getattr(self.split, "nbytes", 0)
