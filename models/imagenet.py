"""Torchvision's own networks for ImageNet, cut into chains of blocks.

The state dict has torchvision's names, so `weights.safetensors` of a run loads into torchvision's network of that name.
Parameters for 3 channels and 1000 classes: ResNet-18 11,689,512, ResNet-50 25,557,032, DenseNet-121 7,978,856,
MobileNetV2 3,504,872. Initial weights are torchvision's.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from torch import nn
from torchvision import models

from models.base import Chain, check_images, sizes
from models.densenet import DenseLayer

SMALLEST = 32  # pixels: five halvings leave one position; a batch then needs two samples for its statistics
Blocks = Iterator[tuple[str, nn.Module]]


class ImageNet(Chain):
    """One of torchvision's networks; its residual, dense and inverted residual units are a block each.

    Args:
        shape: (channels, height, width) of an input, at least 32x32 pixels; for other than 3 channels the first
            convolution is replaced.
        classes: Number of classes.
        architecture: ``resnet18``, ``resnet50``, ``densenet121`` or ``mobilenet_v2``.

    Raises:
        ValueError: The architecture is unknown, or the shape is not an image of at least 32x32.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, architecture: str = "resnet50") -> None:
        if architecture not in ARCHITECTURES:
            raise ValueError(f"model.architecture={architecture}: unknown; allowed: {', '.join(ARCHITECTURES)}")
        check_images(f"imagenet_{architecture}", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        build, cut = ARCHITECTURES[architecture]
        super().__init__(cut(_with_channels(build(num_classes=classes), shape[0])))


def _with_channels(net: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution by one for another number of channels, its weights drawn as torchvision does."""
    name, first = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    if channels == first.in_channels:
        return net
    size, stride, padding = first.kernel_size[0], first.stride[0], int(first.padding[0])
    other = nn.Conv2d(channels, first.out_channels, size, stride=stride, padding=padding, bias=False)
    nn.init.kaiming_normal_(other.weight, mode="fan_in" if isinstance(net, models.DenseNet) else "fan_out")
    parent, _, leaf = name.rpartition(".")
    net.get_submodule(parent).add_module(leaf, other)
    return net


def _resnet(net: nn.Module) -> Blocks:
    for name, part in net.named_children():
        if name.startswith("layer"):
            for index, unit in part.named_children():
                yield f"{name}.{index}", unit
        elif name == "relu":
            yield name, nn.ReLU()  # torchvision's works in place, on what another block returned
        elif name == "avgpool":
            yield name, nn.Sequential(part, nn.Flatten())
        else:
            yield name, part


def _densenet(net: nn.Module) -> Blocks:
    for name, part in net.get_submodule("features").named_children():
        if name.startswith("denseblock"):
            for inner, layer in part.named_children():
                yield f"features.{name}.{inner}", DenseLayer(layer)
        elif name == "relu0":
            yield f"features.{name}", nn.ReLU()
        else:
            yield f"features.{name}", part
    yield "relu", nn.ReLU()
    yield "pool", _pool()
    yield "classifier", net.get_submodule("classifier")


def _mobilenet(net: nn.Module) -> Blocks:
    for index, unit in net.get_submodule("features").named_children():
        yield f"features.{index}", unit
    yield "pool", _pool()
    yield "classifier", net.get_submodule("classifier")


def _pool() -> nn.Sequential:
    return nn.Sequential(OrderedDict(mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], Callable[[nn.Module], Blocks]]] = {
    "resnet18": (models.resnet18, _resnet),
    "resnet50": (models.resnet50, _resnet),
    "densenet121": (models.densenet121, _densenet),
    "mobilenet_v2": (models.mobilenet_v2, _mobilenet),
}
