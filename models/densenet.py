"""DenseNet-121 for small images, from torchvision's.

Huang et al. 2017, "Densely connected convolutional networks". The stem is one 3x3 stride-1 convolution without norm,
ReLU and pooling: 6,956,298 parameters for 3 channels and 10 classes.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision.models import densenet as torchvision_densenet

from models.base import Chain, check_images, sizes
from models.resnet import GlobalPool

STEM_WIDTH = 64
SMALLEST = 8  # pixels: three halvings leave one position; a batch then needs two samples for its statistics


class DenseNet121(Chain):
    """DenseNet-BC of 121 layers: growth 32, dense blocks of 6, 12, 24 and 16 layers, transitions that halve.

    The blocks are ``stem``, ``dense1.1`` ... ``dense1.6``, ``transition1``, ..., ``dense4.16``, ``norm``, ``relu``,
    ``pool`` and ``classifier``. Initial weights are torchvision's: convolutions N(0, sqrt(2 / (k*k*in))), batch norm 1
    and 0, the linear layer as PyTorch's default with bias 0.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels; below 16x16 the last dense block has a single
            position.
        classes: Number of classes.

    Raises:
        ValueError: The shape is not an image of at least 8x8.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        check_images("densenet121", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        super().__init__(_blocks(shape[0], torchvision_densenet.densenet121(num_classes=classes)))


class DenseLayer(nn.Sequential):
    """A layer of a dense block: what it computes from its input is appended to the input's channels.

    Args:
        layer: torchvision's layer, which takes a list of all earlier outputs; its parts keep their names.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(OrderedDict(layer.named_children()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C + growth, H, W]``."""
        return torch.cat([inputs, super().forward(inputs)], dim=1)


def _blocks(channels: int, net: torchvision_densenet.DenseNet) -> Iterator[tuple[str, nn.Module]]:
    stem = nn.Conv2d(channels, STEM_WIDTH, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)
    yield "stem", stem
    for name, part in net.features.named_children():
        if name.startswith("denseblock"):
            for index, layer in enumerate(part.children(), start=1):
                yield f"dense{name.removeprefix('denseblock')}.{index}", DenseLayer(layer)
        elif name.startswith("transition"):
            yield name, part
    yield "norm", net.features.get_submodule("norm5")
    yield "relu", nn.ReLU()
    yield "pool", GlobalPool()
    yield "classifier", net.classifier
