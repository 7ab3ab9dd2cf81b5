"""GoogLeNet with batch norm for small images.

Szegedy et al. 2015, "Going deeper with convolutions", table 1, as it is commonly built for 32x32: one 3x3 convolution
with 192 channels instead of the stem (so two halvings are left), two 3x3 convolutions in place of every 5x5, batch norm
after every convolution (which keeps its bias), no auxiliary classifiers, no dropout. 6,166,250 parameters for 3
channels and 10 classes. Torchvision's has one 3x3 convolution in place of a 5x5, no biases, and the large stem.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.base import Chain, check_images, sizes
from models.resnet import GlobalPool, initialise_convolutions

STEM_WIDTH = 192
SMALLEST = 8
# Channels of table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; after the pooling.
STAGES: dict[str, dict[str, tuple[int, int, int, int, int, int]]] = {
    "inception3": {"a": (64, 96, 128, 16, 32, 32), "b": (128, 128, 192, 32, 96, 64)},
    "inception4": {
        "a": (192, 96, 208, 16, 48, 64),
        "b": (160, 112, 224, 24, 64, 64),
        "c": (128, 128, 256, 24, 64, 64),
        "d": (112, 144, 288, 32, 64, 64),
        "e": (256, 160, 320, 32, 128, 128),
    },
    "inception5": {"a": (256, 160, 320, 32, 128, 128), "b": (384, 192, 384, 48, 128, 128)},
}


class GoogLeNet(Chain):
    """GoogLeNet: a convolution, nine inception modules in three stages, global average pooling and a linear layer.

    The blocks are ``stem``, ``inception3.a``, ``inception3.b``, ``pool3``, ``inception4.a`` ... ``inception5.b``,
    ``pool`` and ``classifier``. Initial weights: convolutions N(0, sqrt(2 / (k*k*out))) with bias 0, batch norm 1 and
    0, the linear layer as PyTorch's default.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels.
        classes: Number of classes.

    Raises:
        ValueError: The shape is not an image of at least 8x8.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        check_images("googlenet", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        super().__init__(_blocks(shape[0], classes))
        initialise_convolutions(self)


class Inception(nn.Module):
    """Four branches on the same input, side by side in the output's channels.

    Args:
        before: Channels of the input.
        widths: Output channels: of the 1x1 branch; of the 3x3 branch's reduction and of itself; likewise of the 5x5
            branch (two 3x3 convolutions); of the pooling branch.
    """

    def __init__(self, before: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch1 = _unit(before, one, 1)
        self.branch3 = nn.Sequential(OrderedDict(reduce=_unit(before, reduce3, 1), conv=_unit(reduce3, three, 3)))
        self.branch5 = nn.Sequential(
            OrderedDict(reduce=_unit(before, reduce5, 1), conv1=_unit(reduce5, five, 3), conv2=_unit(five, five, 3))
        )
        self.branch_pool = nn.Sequential(
            OrderedDict(pool=nn.MaxPool2d(kernel_size=3, stride=1, padding=1), conv=_unit(before, pooled, 1))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, before, H, W]`` to ``[B, one + three + five + pooled, H, W]``."""
        branches = (self.branch1, self.branch3, self.branch5, self.branch_pool)
        return torch.cat([branch(inputs) for branch in branches], dim=1)


def _blocks(channels: int, classes: int) -> Iterator[tuple[str, nn.Module]]:
    yield "stem", _unit(channels, STEM_WIDTH, 3)
    before = STEM_WIDTH
    for stage, modules in STAGES.items():
        for letter, widths in modules.items():
            yield f"{stage}.{letter}", Inception(before, widths)
            one, _, three, _, five, pooled = widths
            before = one + three + five + pooled
        if stage != "inception5":
            yield f"pool{stage[-1]}", nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    yield "pool", GlobalPool()
    yield "classifier", nn.Linear(before, classes)


def _unit(before: int, width: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, kernel_size=kernel, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)))
