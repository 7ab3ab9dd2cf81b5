import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.resnet import ResNet


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize(
    ("depth", "count"),
    [(8, 75_290), (20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962), (164, 2_602_906)],
)
def test_parameter_counts(depth, count):
    assert parameters(ResNet(shape=(3, 32, 32), classes=10, depth=depth)) == count


def test_other_parameter_counts():
    assert parameters(ResNet(shape=(3, 32, 32), classes=100)) == 269_722 + 5_850
    assert parameters(ResNet(shape=(1, 28, 28), classes=10)) == 269_722 - 2 * 9 * 16
    assert parameters(ResNet(shape=(3, 32, 32), classes=10, depth=8, batch_norm=False)) == 74_810
    # Half the width: a quarter of the 73,728 weights between channels, half of the stem, the norms and the classifier.
    assert parameters(ResNet(shape=(3, 32, 32), classes=10, depth=8, width=8)) == 73_728 // 4 + 216 + 240 + 330


def test_blocks_are_the_units_that_pipelines_cut():
    names = [name for name, _ in ResNet(shape=(3, 32, 32), classes=10, depth=110).blocks()]
    assert names[:4] == ["stem.conv", "stem.norm", "stem.relu", "stage1.0"]
    assert names[-3:] == ["stage3.17", "pool", "classifier"]
    assert len(names) - 1 == 29 + 29  # the literature's count leaves the classifier out
    assert len(list(ResNet(shape=(3, 32, 32), classes=10, depth=164).blocks())) - 1 == 22 + 22 + 22 + 19


def test_state_dict_names():
    names = set(ResNet(shape=(1, 8, 8), classes=10, depth=8).state_dict())
    assert {"stem.conv.weight", "stem.norm.running_var", "stage2.0.conv1.weight", "classifier.bias"} <= names
    assert not any("conv" in name and name.endswith("bias") for name in names)


@pytest.mark.parametrize("width", [0, -16, 1.5, True])
def test_widths_that_do_not_exist_are_refused(width):
    with pytest.raises(ValueError, match=rf"^model\.width={width}: .*allowed: a positive number of channels"):
        ResNet(shape=(3, 32, 32), classes=10, depth=8, width=width)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 9, 13), (4, 28, 28)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_image_shape_trains(shape, batch_norm):
    torch.manual_seed(0)
    net = ResNet(shape=shape, classes=7, depth=8, batch_norm=batch_norm).to(memory_format=torch.channels_last)
    inputs = torch.randn(4, *shape).contiguous(memory_format=torch.channels_last)
    outputs = net(inputs)
    assert outputs.shape == (4, 7)
    net.loss(outputs, torch.tensor([0, 1, 2, 6])).backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_forward_against_the_paper_written_out():
    torch.manual_seed(0)
    net = ResNet(shape=(3, 9, 9), classes=5, depth=14).double().eval()
    state = net.state_dict()
    for name, value in state.items():
        if "norm" in name and value.is_floating_point():
            value.uniform_(0.5, 1.5)

    def norm(x, name):
        return functional.batch_norm(
            x,
            state[f"{name}.running_mean"],
            state[f"{name}.running_var"],
            state[f"{name}.weight"],
            state[f"{name}.bias"],
        )

    inputs = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    x = torch.relu(norm(functional.conv2d(inputs, state["stem.conv.weight"], padding=1), "stem.norm"))
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        for index in (0, 1):
            name = f"stage{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            y = functional.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = functional.conv2d(torch.relu(norm(y, f"{name}.norm1")), state[f"{name}.conv2.weight"], padding=1)
            y = norm(y, f"{name}.norm2")
            shortcut = torch.zeros_like(y)
            shortcut[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
            x = torch.relu(y + shortcut)
            assert x.shape[1] == width
    expected = functional.linear(x.mean(dim=(2, 3)), state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(net(inputs), expected)


def test_blocks_leave_their_inputs_alone():
    torch.manual_seed(0)
    net = ResNet(shape=(3, 8, 8), classes=5, depth=8)
    x = torch.randn(2, 3, 8, 8)
    for name, block in net.blocks():
        # A cut between two blocks makes the later one's input a leaf that needs a gradient.
        leaf = x.detach().requires_grad_()
        before = leaf.detach().clone()
        x = block(leaf)
        x.sum().backward()
        assert torch.equal(leaf.detach(), before), name
        assert leaf.grad is not None, name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layout_is_kept_through_forward_and_backward(memory_format):
    net = ResNet(shape=(3, 16, 16), classes=5, depth=8).to(memory_format=memory_format)
    seen = []
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=memory_format)
    for name, block in net.blocks():
        if name == "pool":
            break
        x = block(x)
        x.register_hook(lambda grad, name=name: seen.append((name, grad.is_contiguous(memory_format=memory_format))))
        assert x.is_contiguous(memory_format=memory_format), name
    # A gradient that the pool broadcasts over the positions has no layout of its own: give the last block a dense one.
    x.backward(torch.randn_like(x))
    assert len(seen) == 6
    assert all(kept for _, kept in seen), seen


def test_initial_weights():
    torch.manual_seed(3)
    net = ResNet(shape=(3, 32, 32), classes=10, depth=20)
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(2.0 / (9 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(std, rel=0.12), name
            assert module.weight.abs().max() > 2.0 * std, name  # normal, not uniform: that ends at 1.73 std
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
            assert module.momentum == 0.1  # r <- 0.9 r + 0.1 b


def test_initial_weights_follow_the_seed_alone():
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(ResNet(shape=(1, 8, 8), classes=10, depth=8).parameters())

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("shape", [(22,), (3, 7, 32), (8, 8), (1, 2, 8, 8)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError) as caught:
        ResNet(shape=shape, classes=10, depth=20)
    assert str(caught.value) == (
        f"model=resnet20: cannot take inputs of shape {shape}; "
        "allowed: images (channels, height, width) of at least 8x8"
    )


def test_batch_norm_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^model=resnet8_nobn: cannot take inputs of shape \(22,\); allowed: images"):
        ResNet(shape=(22,), classes=10, depth=8, batch_norm=False)


@pytest.mark.parametrize("depth", [2, 18, 21, 20.0, True])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(ValueError, match=f"^model.depth={depth}: .*; allowed: 6n \\+ 2"):
        ResNet(shape=(3, 32, 32), classes=10, depth=depth)
