import pytest
import torch
from torch import nn
from torchvision import models

from models.densenet import DenseNet121


def test_matches_torchvision_after_its_stem():
    torch.manual_seed(0)
    net = DenseNet121(shape=(3, 16, 16), classes=7).eval()
    theirs = models.densenet121(num_classes=7).eval()
    theirs.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    for part in ("norm0", "relu0", "pool0"):
        setattr(theirs.features, part, nn.Identity())
    ours = list(net.state_dict().values())
    assert len(ours) == len(theirs.state_dict())
    for value, old in zip(ours, theirs.state_dict().values(), strict=True):
        old.copy_(value)
    inputs = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(inputs), theirs(inputs))


def test_blocks_and_widths():
    net = DenseNet121(shape=(3, 16, 16), classes=10).eval()
    x = torch.randn(1, 3, 16, 16)
    widths = {}
    for name, block in net.blocks():
        x = block(x)
        widths[name] = tuple(x.shape[1:])
    assert sum(name.startswith("dense") for name in widths) == 6 + 12 + 24 + 16
    assert widths["dense1.1"] == (96, 16, 16)
    assert widths["dense1.6"] == (256, 16, 16)
    assert widths["transition1"] == (128, 8, 8)
    assert widths["dense4.16"] == (1024, 2, 2)
    assert "dense2.3.conv2.weight" in net.state_dict()


def test_initial_weights():
    torch.manual_seed(0)
    net = DenseNet121(shape=(3, 32, 32), classes=10)
    assert net.get_parameter("stem.weight").std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)
    assert net.get_parameter("dense4.1.conv1.weight").std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
