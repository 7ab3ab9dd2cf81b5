import pytest
import torch
from torchvision import models

from models.imagenet import ARCHITECTURES, ImageNet


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_matches_torchvision_by_name(architecture):
    torch.manual_seed(0)
    net = ImageNet(shape=(3, 64, 64), classes=7, architecture=architecture).eval()
    theirs = getattr(models, architecture)(num_classes=7).eval()
    assert list(net.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(net.state_dict())
    inputs = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(inputs), theirs(inputs))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_other_channels_replace_first_convolution(architecture):
    torch.manual_seed(0)
    net = ImageNet(shape=(9, 64, 64), classes=7, architecture=architecture)
    with torch.device("meta"):
        theirs = getattr(models, architecture)(num_classes=7)
    name, first = next(iter(net.named_parameters()))
    old = theirs.get_parameter(name)
    assert first.shape == (old.shape[0], 9, *old.shape[2:])
    fan = 9 if architecture == "densenet121" else old.shape[0]
    assert first.std().item() == pytest.approx((2 / (fan * first.shape[2] ** 2)) ** 0.5, rel=0.1)


def test_units_are_blocks_of_their_own():
    with torch.device("meta"):
        nets = {name: ImageNet(shape=(3, 224, 224), classes=1000, architecture=name) for name in ARCHITECTURES}
    assert len(nets["resnet50"].block_names) == 4 + 16 + 2
    assert len(nets["mobilenet_v2"].block_names) == 19 + 2
    assert len(nets["densenet121"].block_names) == 4 + 58 + 3 + 4


def test_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match=r"^model.architecture=resnet51: unknown; allowed: resnet18, resnet50, "):
        ImageNet(shape=(3, 224, 224), classes=1000, architecture="resnet51")
