"""A small network with dropout and, if asked for, batch norm, which `weights.py` trains as a user's own model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from models.base import Chain


class DropoutMLP(Chain):
    """Fully connected layers of tanh units with dropout after each but the last.

    Args:
        shape: shape of an input; it is flattened.
        classes: number of classes.
        widths: units of the hidden layers, first to last.
        rate: share of units that dropout sets to zero.
        batch_norm: whether each hidden layer normalises its batch.
    """

    def __init__(
        self, *, shape: Sequence[int], classes: int, widths: Sequence[int], rate: float = 0.3, batch_norm: bool = False
    ) -> None:
        super().__init__(_blocks(math.prod(shape), classes, widths, rate, batch_norm))


def _blocks(
    features: int, classes: int, widths: Sequence[int], rate: float, batch_norm: bool
) -> Iterator[tuple[str, nn.Module]]:
    yield "flatten", nn.Flatten()
    for number, width in enumerate(widths, start=1):
        norm = (nn.BatchNorm1d(width),) if batch_norm else ()
        yield f"hidden{number}", nn.Sequential(nn.Linear(features, width), *norm, nn.Tanh(), nn.Dropout(rate))
        features = width
    yield "classifier", nn.Linear(features, classes)
