"""Residual networks with 64 to 512 channels for small images, from torchvision's.

He et al. 2016, "Deep residual learning for image recognition", table 1, and Xie et al. 2017, "Aggregated residual
transformations for deep neural networks". Torchvision's networks halve an image five times; here the stem is one
stride-1 convolution without pooling, so that three halvings are left: ResNet-18 has 11,173,962 parameters for 3
channels and 10 classes, ResNet-50 23,520,842, ResNet-101 42,512,970, ResNet-152 58,156,618, ResNeXt-29 (2x64d)
9,128,778. As torchvision does, the step of a bottleneck is in its 3x3 convolution (the paper has it in the first 1x1).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import nn
from torchvision.models import resnet as torchvision_resnet

from models.base import Chain, check_images, sizes
from models.resnet import GlobalPool, initialise_convolutions

STEM_WIDTH = 64
SMALLEST = 8  # pixels: three halvings leave one position; a batch then needs two samples for its statistics
UNITS: dict[int, tuple[type[nn.Module], list[int]]] = {
    18: (torchvision_resnet.BasicBlock, [2, 2, 2, 2]),
    34: (torchvision_resnet.BasicBlock, [3, 4, 6, 3]),
    50: (torchvision_resnet.Bottleneck, [3, 4, 6, 3]),
    101: (torchvision_resnet.Bottleneck, [3, 4, 23, 3]),
    152: (torchvision_resnet.Bottleneck, [3, 8, 36, 3]),
}


class DeepResNet(Chain):
    """ResNet of 18 to 152 layers with a 3x3 stem and projection shortcuts.

    The blocks are ``stem`` (convolution, norm, ReLU), ``stage1.0`` ... ``stage4.N``, ``pool`` and ``classifier``.
    Initial weights: convolutions N(0, sqrt(2 / (k*k*out))), batch norm 1 and 0, the linear layer as PyTorch's default.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels; below 9x9 the last stage has a single
            position.
        classes: Number of classes.
        depth: 18 or 34 (two 3x3 convolutions a block), 50, 101 or 152 (bottlenecks).

    Raises:
        ValueError: another depth, or a shape that is not an image of at least 8x8.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, depth: int = 50) -> None:
        if isinstance(depth, bool) or depth not in UNITS:
            raise ValueError(f"model.depth={depth}: no such network; allowed: {', '.join(map(str, UNITS))}")
        check_images(f"resnet{depth}", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        unit, counts = UNITS[depth]
        net = torchvision_resnet.ResNet(unit, counts, num_classes=classes)  # pyright: ignore[reportArgumentType]
        super().__init__(_blocks(net, stem(shape[0], STEM_WIDTH, kernel=3), stages=4))
        initialise_convolutions(self)


class ResNeXt29(Chain):
    """ResNeXt-29 with two groups of 64 channels: a 1x1 stem and three stages of three grouped bottlenecks.

    The blocks are ``stem`` (convolution, norm, ReLU), ``stage1.0`` ... ``stage3.2``, ``pool`` and ``classifier``;
    initial weights as in `DeepResNet`.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels.
        classes: Number of classes.

    Raises:
        ValueError: The shape is not an image of at least 8x8.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        check_images("resnext29", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        net = torchvision_resnet.ResNet(
            torchvision_resnet.Bottleneck, [3, 3, 3, 1], num_classes=classes, groups=2, width_per_group=64
        )
        net.fc = nn.Linear(1024, classes)
        super().__init__(_blocks(net, stem(shape[0], STEM_WIDTH, kernel=1), stages=3))
        initialise_convolutions(self)


def stem(channels: int, width: int, *, kernel: int) -> nn.Sequential:
    """Return a stride-1 convolution that keeps height and width, norm and ReLU."""
    convolution = nn.Conv2d(channels, width, kernel_size=kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)))


def _blocks(net: torchvision_resnet.ResNet, first: nn.Module, *, stages: int) -> Iterator[tuple[str, nn.Module]]:
    yield "stem", first
    for stage in range(1, stages + 1):
        for index, unit in net.get_submodule(f"layer{stage}").named_children():
            yield f"stage{stage}.{index}", unit
    yield "pool", GlobalPool()
    yield "classifier", net.fc
