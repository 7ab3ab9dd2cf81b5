import pytest
import torch
from torch import nn

from models.mobilenet import InvertedResidual, MobileNetV2


@pytest.mark.parametrize(
    ("before", "width", "stride", "shortcut"),
    [(8, 8, 1, nn.Identity), (8, 12, 1, nn.Sequential), (8, 12, 2, None), (8, 8, 2, None)],
)
def test_shortcuts(before, width, stride, shortcut):
    torch.manual_seed(0)
    block = InvertedResidual(before, width, 6, stride).eval()
    x = torch.randn(2, before, 6, 6)
    y = block.project(block.depthwise(block.expand(x)))
    if shortcut is None:
        assert block.shortcut is None
        torch.testing.assert_close(block(x), y)
    else:
        assert block.shortcut is not None
        assert isinstance(block.shortcut, shortcut)
        torch.testing.assert_close(block(x), y + block.shortcut(x))
    assert block(x).shape == (2, width, 6 // stride, 6 // stride)
    assert block.depthwise.get_submodule("conv").groups == 6 * before
    assert block.project(torch.randn(2, 6 * before, 3, 3)).min() < 0  # linear


def test_blocks_and_resolutions():
    net = MobileNetV2(shape=(3, 32, 32), classes=10).eval()
    x, sizes = torch.randn(1, 3, 32, 32), {}
    for name, block in net.blocks():
        x = block(x)
        sizes[name] = tuple(x.shape[1:])
    assert len(sizes) == 1 + 17 + 3
    assert sizes["stem"] == (32, 32, 32)
    assert sizes["stage2.1"] == (24, 32, 32)
    assert sizes["stage3.0"] == (32, 16, 16)
    assert sizes["stage4.3"] == (64, 8, 8)
    assert sizes["stage5.2"] == (96, 8, 8)
    assert sizes["stage6.0"] == (160, 4, 4)
    assert sizes["head"] == (1280, 4, 4)
