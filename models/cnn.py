"""A small convolutional network with sigmoids, LeNet-5 except for its connections and output.

LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.B: layer sizes are those of
LeNet-5, with every channel connected to every other, plain averages as subsampling and a linear output: 61,706
parameters for 28x28 grey images and 10 classes.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import nn

from models.base import Chain, check_images, sizes
from models.mlp import initialise_for_sigmoids

SMALLEST = 12  # pixels: one position is left for the linear layers


class CNN5(Chain):
    """Two 5x5 convolutions of 6 and 16 channels and linear layers of 120, 84 and ``classes`` units.

    A sigmoid follows every layer but the last, 2x2 average pooling both convolutions; the first convolution pads by 2.
    The blocks are ``conv1``, ``conv2``, ``flatten``, ``hidden1``, ``hidden2`` and ``classifier``. Initial weights are
    those of `models.mlp.initialise_for_sigmoids`.

    Args:
        shape: (channels, height, width) of an input, at least 12x12 pixels.
        classes: Number of classes.

    Raises:
        ValueError: The shape is not an image of at least 12x12.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        check_images("cnn5", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        super().__init__(_blocks(shape[0], shape[1], shape[2], classes))
        initialise_for_sigmoids(self)


def _blocks(channels: int, height: int, width: int, classes: int) -> Iterator[tuple[str, nn.Module]]:
    yield "conv1", _convolution(channels, 6, padding=2)
    yield "conv2", _convolution(6, 16, padding=0)
    yield "flatten", nn.Flatten()
    before = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    for number, units in enumerate((120, 84), start=1):
        yield f"hidden{number}", nn.Sequential(OrderedDict(linear=nn.Linear(before, units), activation=nn.Sigmoid()))
        before = units
    yield "classifier", nn.Linear(before, classes)


def _convolution(before: int, width: int, *, padding: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, kernel_size=5, padding=padding)
    return nn.Sequential(OrderedDict(conv=convolution, activation=nn.Sigmoid(), pool=nn.AvgPool2d(kernel_size=2)))
