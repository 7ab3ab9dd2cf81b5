"""Multinomial logistic regression: one linear layer and cross-entropy, a convex objective."""

import math
from collections.abc import Sequence

from torch import nn

from models.base import Chain, sizes


class Linear(Chain):
    """Multinomial logistic regression on flattened inputs.

    The blocks are ``flatten`` and ``classifier``. All weights start at zero whatever the seed: the objective is
    convex, and at zero every class is equally likely.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes.
        bias: Learn an offset per class.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, bias: bool = True) -> None:
        features = math.prod(sizes("shape", tuple(shape), "the sizes of a sample, all positive"))
        sizes("classes", classes, "a positive number of classes")
        classifier = nn.Linear(features, classes, bias=bias)
        for weight in classifier.parameters():
            nn.init.zeros_(weight)
        super().__init__([("flatten", nn.Flatten()), ("classifier", classifier)])
