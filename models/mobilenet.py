"""MobileNetV2 for small images.

Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks", table 2, as it is commonly built for
32x32: the stem and the second stage keep the resolution (three halvings are left), every block of stride 1 has a
shortcut, projected where the channels change, the first block has an expansion too, activations are ReLU instead of
ReLU6, no dropout. 2,296,922 parameters for 3 channels and 10 classes.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from models.base import Chain, check_images, sizes
from models.resnet import GlobalPool, initialise_convolutions

STEM_WIDTH, HEAD_WIDTH = 32, 1280
SMALLEST = 8  # pixels: three halvings leave one position; a batch then needs two samples for its statistics
# Expansion, channels, blocks and first stride of each stage (table 2 but for the stride of the second stage).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(Chain):
    """MobileNetV2: 17 inverted residual blocks between a 3x3 convolution and a 1x1 convolution to 1280 channels.

    The blocks are ``stem``, ``stage1.0`` ... ``stage7.0``, ``head``, ``pool`` and ``classifier``. Initial weights:
    convolutions N(0, sqrt(2 / (k*k*out))), batch norm 1 and 0, the linear layer as PyTorch's default.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels; below 9x9 the last stages have a single
            position.
        classes: Number of classes.

    Raises:
        ValueError: The shape is not an image of at least 8x8.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        check_images("mobilenet_v2", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        super().__init__(_blocks(shape[0], classes))
        initialise_convolutions(self)


class InvertedResidual(nn.Module):
    """Widens by a 1x1 convolution, filters each channel by itself, narrows by a linear 1x1 convolution.

    Args:
        before: Channels of the input.
        width: Channels of the output.
        expansion: How many times wider than the input it is inside.
        stride: Step of the filters; with 1 there is a shortcut.
    """

    def __init__(self, before: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inside = before * expansion
        self.expand = _unit(before, inside, 1)
        self.depthwise = _unit(inside, inside, 3, stride=stride, groups=inside)
        self.project = _unit(inside, width, 1, relu=False)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if before == width else _unit(before, width, 1, relu=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, before, H, W]`` to ``[B, width, ceil(H / stride), ceil(W / stride)]``."""
        outputs = self.project(self.depthwise(self.expand(inputs)))
        return outputs if self.shortcut is None else outputs.add_(self.shortcut(inputs))


def _blocks(channels: int, classes: int) -> Iterator[tuple[str, nn.Module]]:
    yield "stem", _unit(channels, STEM_WIDTH, 3)
    before = STEM_WIDTH
    for stage, (expansion, width, count, stride) in enumerate(STAGES, start=1):
        for index in range(count):
            yield f"stage{stage}.{index}", InvertedResidual(before, width, expansion, stride if index == 0 else 1)
            before = width
    yield "head", _unit(before, HEAD_WIDTH, 1)
    yield "pool", GlobalPool()
    yield "classifier", nn.Linear(HEAD_WIDTH, classes)


def _unit(
    before: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2d(
        before, width, kernel_size=kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width))
    if relu:
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)
