"""Multi-layer perceptrons of any widths, for inputs of any shape."""

import math
from collections.abc import Iterator, Sequence

from torch import nn

from models.base import Chain, sizes

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class MLP(Chain):
    """Fully connected layers with an activation after each but the last.

    The blocks are ``flatten``, ``hidden1`` ... ``hiddenN`` and ``classifier``; their parameters
    ``hidden1.linear.weight`` and so on. Initial weights are PyTorch's default for linear layers, from torch's global
    generator.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes.
        widths: Units of the hidden layers, first to last; none makes a linear model.
        activation: ``relu`` or ``tanh``.

    Raises:
        ValueError: A width is no positive whole number, or the activation is unknown.
    """

    def __init__(
        self, *, shape: Sequence[int], classes: int, widths: Sequence[int] = (100,), activation: str = "relu"
    ) -> None:
        if isinstance(widths, (str, int, float)) or widths is None:
            raise ValueError(f"model.widths={widths}: not a list; allowed: a list of positive whole numbers, as [100]")
        if activation not in ACTIVATIONS:
            raise ValueError(f"model.activation={activation}: unknown; allowed: {', '.join(ACTIVATIONS)}")
        features = math.prod(sizes("shape", tuple(shape), "the sizes of a sample, all positive"))
        sizes("classes", [classes], "a positive number of classes")
        hidden = sizes("model.widths", tuple(widths), "a list of positive whole numbers, as [100]")
        super().__init__(_blocks(features, classes, hidden, ACTIVATIONS[activation]))


def _blocks(
    features: int, classes: int, widths: Sequence[int], activation: type[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    yield "flatten", nn.Flatten()
    before = features
    for number, width in enumerate(widths, start=1):
        layer = nn.Sequential()
        layer.add_module("linear", nn.Linear(before, width))
        layer.add_module("activation", activation())
        yield f"hidden{number}", layer
        before = width
    yield "classifier", nn.Linear(before, classes)
