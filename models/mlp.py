"""Multi-layer perceptrons of any widths, for inputs of any shape."""

import math
from collections.abc import Iterator, Sequence

from torch import nn

from models.base import Chain, sizes

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
SIGMOID_GAIN = 4.0  # the sigmoid's slope at zero is 1/4


class MLP(Chain):
    """Fully connected layers with an activation after each but the last.

    The blocks are ``flatten``, ``hidden1`` ... ``hiddenN`` and ``classifier``; their parameters
    ``hidden1.linear.weight`` and so on. Initial weights come from torch's global generator: PyTorch's default for
    linear layers, except with sigmoids, see `initialise_for_sigmoids`.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes.
        widths: Units of the hidden layers, first to last; none makes a linear model.
        activation: ``relu``, ``tanh`` or ``sigmoid``.

    Raises:
        ValueError: A width is not a positive whole number, or the activation is unknown.
    """

    def __init__(
        self, *, shape: Sequence[int], classes: int, widths: Sequence[int] = (100,), activation: str = "relu"
    ) -> None:
        if isinstance(widths, (str, int, float)) or widths is None:
            raise ValueError(f"model.widths={widths}: not a list; allowed: a list of positive whole numbers, as [100]")
        if activation not in ACTIVATIONS:
            raise ValueError(f"model.activation={activation}: unknown; allowed: {', '.join(ACTIVATIONS)}")
        features = math.prod(sizes("shape", tuple(shape), "the sizes of a sample, all positive"))
        sizes("classes", classes, "a positive number of classes")
        hidden = sizes("model.widths", tuple(widths), "a list of positive whole numbers, as [100]")
        super().__init__(_blocks(features, classes, hidden, ACTIVATIONS[activation]))
        if activation == "sigmoid":
            initialise_for_sigmoids(self)


def initialise_for_sigmoids(net: nn.Module) -> None:
    """Draw the weights of linear and convolutional layers as deep networks of sigmoids need them, and zero biases.

    Weights are uniform with four times the limit of Glorot and Bengio (2010, eq. 16), as they advise for sigmoids. With
    PyTorch's default, which has no gain, networks of five layers stay at the loss of guessing for many epochs.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight, gain=SIGMOID_GAIN)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


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
