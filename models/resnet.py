"""Residual networks for small images (He et al. 2016, "Deep residual learning for image recognition", section 4.2).

A 3x3 convolution, three stages of ``(depth - 2) / 6`` basic blocks with 16, 32 and 64 channels, the second and third
at half the resolution of the one before, global average pooling and one linear layer: ResNet-20 has 269,722
parameters for 3 channels and 10 classes, ResNet-110 has 1,727,962. Where a block changes size its shortcut has no
parameters (the paper's option A).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.base import Chain, check_images, sizes

WIDTH = 16  # channels of the first stage in the paper
SMALLEST = 8  # pixels: the third stage then still has 2x2 positions


class ResNet(Chain):
    """ResNet with basic blocks and widths 16-16-32-64, or others in that ratio.

    The blocks are ``stem.conv``, ``stem.norm``, ``stem.relu``, ``stage1.0`` ... ``stage3.N``, ``pool`` and
    ``classifier``: the units in which the literature on decoupled training counts and cuts these networks.

    Initial weights: convolutions N(0, sqrt(2 / (k*k*out))), batch norm 1 and 0, the linear layer as PyTorch's
    default, all from torch's global generator.

    Args:
        shape: (channels, height, width) of an input, at least 8x8 pixels.
        classes: Number of classes.
        depth: Layers with weights, ``6n + 2``.
        batch_norm: Normalise after every convolution. Without it the convolutions have no bias either; train only
            shallow ones so, ResNet-8 then has 74,810 parameters.
        width: Channels of the stem and of the first stage. The second stage has twice as many, the third four times.

    Raises:
        ValueError: The depth is not ``6n + 2``, the width is not positive or the shape is not an image of at least 8x8.
    """

    def __init__(
        self, *, shape: Sequence[int], classes: int, depth: int = 20, batch_norm: bool = True, width: int = WIDTH
    ) -> None:
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"model.depth={depth}: no such residual network; allowed: 6n + 2, as 8, 20, 32, 44, 56, 110, 164"
            )
        check_images(f"resnet{depth}" if batch_norm else f"resnet{depth}_nobn", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        sizes("model.width", width, "a positive number of channels")
        super().__init__(_blocks(shape[0], classes, (depth - 2) // 6, batch_norm, width))
        initialise_convolutions(self)


def initialise_convolutions(net: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, sqrt(2 / (k*k*out))), and set their biases to zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _blocks(
    channels: int, classes: int, per_stage: int, batch_norm: bool, first: int
) -> Iterator[tuple[str, nn.Module]]:
    yield "stem.conv", _conv(channels, first)
    if batch_norm:
        yield "stem.norm", nn.BatchNorm2d(first)
    yield "stem.relu", nn.ReLU()
    before = first
    for stage, width in enumerate((first, 2 * first, 4 * first), start=1):
        for index in range(per_stage):
            stride = 2 if stage > 1 and index == 0 else 1
            yield f"stage{stage}.{index}", BasicBlock(before, width, stride, batch_norm)
            before = width
    yield "pool", GlobalPool()
    yield "classifier", nn.Linear(before, classes)


def _conv(before: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: ``relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))``.

    Args:
        before: Channels of the input.
        width: Channels of the output, at least ``before``.
        stride: Step of the first convolution and of the shortcut.
        batch_norm: Normalise after each convolution.
    """

    def __init__(self, before: int, width: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = _conv(before, width, stride)
        self.norm1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv2 = _conv(width, width)
        self.norm2 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.stride = stride
        self.padding = width - before

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, before, H, W]`` to ``[B, width, ceil(H / stride), ceil(W / stride)]``."""
        outputs = functional.relu_(self.norm1(self.conv1(inputs)))
        outputs = self.norm2(self.conv2(outputs))
        return functional.relu_(outputs.add_(self.shortcut(inputs)))

    def shortcut(self, inputs: Tensor) -> Tensor:
        """Return the shortcut of option A: every ``stride``-th position, and zeros for the channels that are new."""
        if self.stride > 1:
            # Not inputs[:, :, ::2, ::2]: the gradient of that loses the channels-last layout and costs 3 % of a step.
            inputs = functional.avg_pool2d(inputs, kernel_size=1, stride=self.stride)
        if self.padding:
            inputs = functional.pad(inputs, (0, 0, 0, 0, 0, self.padding))
        return inputs


class GlobalPool(nn.Module):
    """Mean over all positions, ``[B, C, H, W]`` to ``[B, C]``."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C]``."""
        return torch.mean(inputs, dim=(2, 3))
