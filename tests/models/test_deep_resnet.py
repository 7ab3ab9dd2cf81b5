import math

import pytest
import torch
from torch import nn
from torchvision import models

from models.deep_resnet import DeepResNet, ResNeXt29


def test_blocks_are_the_units_that_pipelines_cut():
    with torch.device("meta"):
        deep, deeper = (DeepResNet(shape=(3, 32, 32), classes=10, depth=depth) for depth in (101, 152))
    assert deep.block_names[:2] == ("stem", "stage1.0")
    assert deep.block_names[-3:] == ("stage4.2", "pool", "classifier")
    assert len(deep.block_names) - 1 == 9 + 9 + 9 + 8  # the literature's count leaves the classifier out
    assert len(deeper.block_names) - 1 == 4 * 13


@pytest.mark.parametrize("depth", [18, 50])
def test_matches_torchvision_after_its_stem(depth):
    torch.manual_seed(0)
    net = DeepResNet(shape=(3, 16, 16), classes=7, depth=depth).eval()
    theirs = getattr(models, f"resnet{depth}")(num_classes=7).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    names = {"stem.conv": "conv1", "stem.norm": "bn1", "classifier": "fc"}
    names |= {f"stage{k}": f"layer{k}" for k in range(1, 5)}
    state = {}
    for name, value in net.state_dict().items():
        old = next(prefix for prefix in names if name.startswith(prefix))
        state[names[old] + name.removeprefix(old)] = value
    theirs.load_state_dict(state)
    inputs = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(inputs), theirs(inputs))


def test_initial_weights():
    torch.manual_seed(0)
    for net in (DeepResNet(shape=(1, 8, 8), classes=10, depth=18), ResNeXt29(shape=(1, 8, 8), classes=10)):
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                std = math.sqrt(2.0 / (module.out_channels * math.prod(module.kernel_size)))
                assert module.weight.std().item() == pytest.approx(std, rel=0.15), name


def test_resnext_groups_and_resolution():
    net = ResNeXt29(shape=(3, 32, 32), classes=10).eval()
    widths = []
    x = torch.randn(1, 3, 32, 32)
    for name, block in net.blocks():
        x = block(x)
        if name.startswith("stage"):
            widths.append(tuple(x.shape[1:]))
            assert block.get_submodule("conv2").groups == 2
    assert widths == [(256, 32, 32)] * 3 + [(512, 16, 16)] * 3 + [(1024, 8, 8)] * 3


@pytest.mark.parametrize("depth", [20, "50", True, None])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(ValueError, match=f"^model.depth={depth}: no such network; allowed: 18, 34, 50, 101, 152$"):
        DeepResNet(shape=(3, 32, 32), classes=10, depth=depth)
