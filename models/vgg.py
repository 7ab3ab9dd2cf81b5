"""VGG networks with batch norm for small images, from torchvision's.

Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", columns A and D. The
convolutions are torchvision's; instead of average pooling and three linear layers one linear layer follows them:
VGG-11-BN has 9,231,114 parameters for 3 channels of 32x32 and 10 classes, VGG-16-BN 14,728,266.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from models.base import Chain, check_images, sizes
from models.resnet import initialise_convolutions

SMALLEST = 32  # pixels: five poolings leave one position
WIDTH = 64  # channels of the first convolution, of which all others have a multiple
COLUMNS = {11: "A", 13: "B", 16: "D", 19: "E"}


class VGG(Chain):
    """VGG of 11 to 19 layers with batch norm, whose classifier is a single linear layer.

    The blocks are ``conv1`` ... ``convN`` (convolution with bias, norm, ReLU), ``pool1`` ... ``pool5`` between them,
    ``flatten`` and ``classifier``. Initial weights are torchvision's: convolutions N(0, sqrt(2 / (k*k*out))), batch
    norm 1 and 0, the linear layer N(0, 0.01), biases 0.

    Args:
        shape: (channels, height, width) of an input, at least 32x32 pixels; the classifier sees every position that is
            left after five halvings.
        classes: Number of classes.
        depth: Layers with weights in the original, 11, 13, 16 or 19 (two of its linear layers are left out here).
        width: Channels of the first convolution. The original has 64; with another width every layer has as many times
            more or fewer, which the paper does not have: 16 takes about a sixteenth of the time.

    Raises:
        ValueError: another depth, no positive width, or a shape that is not an image of at least 32x32.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, depth: int = 16, width: int = WIDTH) -> None:
        if isinstance(depth, bool) or depth not in COLUMNS:
            raise ValueError(f"model.depth={depth}: no such network; allowed: {', '.join(map(str, COLUMNS))}")
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ValueError(f"model.width={width}: is not a number of channels; allowed: whole numbers from 1")
        check_images(f"vgg{depth}_bn", shape, SMALLEST)
        sizes("classes", classes, "a positive number of classes")
        positions = (shape[1] // 32) * (shape[2] // 32)
        column = [size // WIDTH * width if isinstance(size, int) else size for size in cfgs[COLUMNS[depth]]]
        super().__init__(_blocks(shape[0], column, nn.Linear(8 * width * positions, classes)))
        initialise_convolutions(self)
        for name, weight in self.get_submodule("classifier").named_parameters():
            if name == "weight":
                nn.init.normal_(weight, std=0.01)
            else:
                nn.init.zeros_(weight)


def _blocks(channels: int, column: list[str | int], classifier: nn.Linear) -> Iterator[tuple[str, nn.Module]]:
    layers = iter(make_layers(column, batch_norm=True))
    convolutions, pools = 0, 0
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            convolutions += 1
            if convolutions == 1 and channels != layer.in_channels:
                layer = nn.Conv2d(channels, layer.out_channels, kernel_size=3, padding=1)
            yield f"conv{convolutions}", nn.Sequential(OrderedDict(conv=layer, norm=next(layers), relu=next(layers)))
        else:
            pools += 1
            yield f"pool{pools}", layer
    yield "flatten", nn.Flatten()
    yield "classifier", classifier
