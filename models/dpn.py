"""DPN-92 for small images.

Chen et al. 2017, "Dual path networks", table 1, as it is commonly built for 32x32: the stem is a 3x3 stride-1
convolution with 64 channels without pooling, a stage's projection also feeds the dense path (whose width starts at two
increments), and the norm follows the convolution. 34,236,634 parameters for 3 channels and 10 classes.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.base import Chain, check_images, sizes
from models.deep_resnet import stem
from models.resnet import GlobalPool, initialise_convolutions

STEM_WIDTH = 64
GROUPS = 32
SMALLEST = 8  # pixels: three halvings leave one position; a batch then needs two samples for its statistics
# Blocks, channels inside, channels of the residual path and growth of the dense path, of each stage.
STAGES = ((3, 96, 256, 16), (4, 192, 512, 32), (20, 384, 1024, 24), (3, 768, 2048, 128))


class DPN92(Chain):
    """DPN-92: four stages of 3, 4, 20 and 3 blocks that add to some channels and append to the others.

    The blocks are ``stem`` (convolution, norm, ReLU), ``stage1.0`` ... ``stage4.2``, ``pool`` and ``classifier``.
    Initial weights: convolutions N(0, sqrt(2 / (k*k*out))), batch norm 1 and 0, the linear layer as PyTorch's default.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels; below 9x9 the last stage has a single
            position.
        classes: Number of classes.

    Raises:
        ValueError: The shape is not an image of at least 8x8.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        check_images("dpn92", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        super().__init__(_blocks(shape[0], classes))
        initialise_convolutions(self)


class DualPath(nn.Module):
    """A grouped bottleneck whose output is added to the residual path and appended to the dense path.

    Args:
        before: Channels of the input.
        inside: Channels of the 3x3 convolution, in 32 groups.
        residual: Channels of the residual path, the first ones of input and output.
        growth: Channels that are appended.
        stride: Step of the 3x3 convolution and of the projection.
        project: Project the input first, to ``residual + growth`` channels, as the first block of a stage does.
    """

    def __init__(self, before: int, inside: int, residual: int, growth: int, *, stride: int, project: bool) -> None:
        super().__init__()
        width = residual + growth
        self.residual = residual
        self.conv1 = nn.Conv2d(before, inside, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, kernel_size=3, stride=stride, padding=1, groups=GROUPS, bias=False)
        self.norm2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, width, kernel_size=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            projection = nn.Conv2d(before, width, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, norm=nn.BatchNorm2d(width)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, residual + d, H, W]`` to ``[B, residual + d + growth, H, W]``; ``d = growth`` if it projects."""
        outputs = self.relu(self.norm1(self.conv1(inputs)))
        outputs = self.relu(self.norm2(self.conv2(outputs)))
        outputs = self.norm3(self.conv3(outputs))
        shortcut, r = self.shortcut(inputs), self.residual
        added = shortcut[:, :r] + outputs[:, :r]
        return self.relu(torch.cat([added, shortcut[:, r:], outputs[:, r:]], dim=1))


def _blocks(channels: int, classes: int) -> Iterator[tuple[str, nn.Module]]:
    yield "stem", stem(channels, STEM_WIDTH, kernel=3)
    before = STEM_WIDTH
    for stage, (count, inside, residual, growth) in enumerate(STAGES, start=1):
        for index in range(count):
            first = index == 0
            stride = 2 if first and stage > 1 else 1
            yield f"stage{stage}.{index}", DualPath(before, inside, residual, growth, stride=stride, project=first)
            before = residual + (index + 2) * growth
    yield "pool", GlobalPool()
    yield "classifier", nn.Linear(before, classes)
