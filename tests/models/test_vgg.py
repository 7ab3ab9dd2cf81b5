import pytest
import torch
from torch import nn
from torchvision import models

from models.vgg import VGG


def test_its_convolutions_are_torchvisions():
    torch.manual_seed(0)
    net = VGG(shape=(3, 32, 32), classes=10, depth=11).eval()
    with torch.device("meta"):
        theirs = models.vgg11_bn().features
    theirs = theirs.to_empty(device="cpu").eval()
    with torch.no_grad():
        ours = [value for name, value in net.state_dict().items() if not name.startswith("classifier")]
        for value, old in zip(ours, theirs.state_dict().values(), strict=True):
            old.copy_(value)
        inputs = torch.randn(2, 3, 32, 32)
        classifier = net.get_submodule("classifier")
        torch.testing.assert_close(net(inputs), classifier(theirs(inputs).flatten(1)))


def test_names_of_blocks_and_weights():
    with torch.device("meta"):
        net = VGG(shape=(3, 32, 32), classes=10, depth=16)
    assert net.block_names[:5] == ("conv1", "conv2", "pool1", "conv3", "conv4")
    assert net.block_names[-4:] == ("conv13", "pool5", "flatten", "classifier")
    assert {"conv1.conv.bias", "conv13.norm.running_mean", "classifier.weight"} <= set(net.state_dict())


def test_larger_images_give_the_classifier_more_positions():
    with torch.device("meta"):
        net = VGG(shape=(3, 64, 100), classes=10, depth=11)
    assert net.get_parameter("classifier.weight").shape == (10, 512 * 2 * 3)


def test_initial_weights():
    torch.manual_seed(0)
    net = VGG(shape=(1, 32, 32), classes=100, depth=11)
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            std = (2 / (9 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(std, rel=0.12), name
            assert not net.get_parameter(f"{name}.bias").any(), name
    assert net.get_parameter("classifier.weight").std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("depth", [12, 11.5, True])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(ValueError, match=f"^model.depth={depth}: no such network; allowed: 11, 13, 16, 19$"):
        VGG(shape=(3, 32, 32), classes=10, depth=depth)


def test_width_scales_every_layer():
    with torch.device("meta"):
        net = VGG(shape=(3, 32, 32), classes=10, depth=11, width=16)
        whole = VGG(shape=(3, 32, 32), classes=10, depth=11)
    pairs = zip(net.named_parameters(), whole.named_parameters(), strict=True)
    assert all(4 * ours.shape[0] == theirs.shape[0] for (name, ours), (_, theirs) in pairs if "classifier" not in name)
    assert net.get_parameter("classifier.weight").shape == (10, 128)


@pytest.mark.parametrize("width", [0, 1.5, True])
def test_widths_that_are_none_are_refused(width):
    with pytest.raises(ValueError, match=f"^model.width={width}: is not a number of channels; allowed: whole numbers"):
        VGG(shape=(3, 32, 32), classes=10, depth=11, width=width)
