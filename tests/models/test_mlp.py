import pytest
import torch
from torch import nn

from models.mlp import MLP


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def test_parameter_counts():
    assert parameters(MLP(shape=(1, 28, 28), classes=10)) == 784 * 100 + 100 + 100 * 10 + 10
    assert parameters(MLP(shape=(384,), classes=10, widths=[50, 20])) == 385 * 50 + 51 * 20 + 21 * 10
    assert parameters(MLP(shape=(5,), classes=3, widths=[])) == 6 * 3


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_forward_by_hand(activation):
    torch.manual_seed(0)
    net = MLP(shape=(2, 3, 4), classes=5, widths=[7, 6], activation=activation)
    state, x = net.state_dict(), torch.randn(8, 2, 3, 4)
    y = x.reshape(8, 24)
    for layer in ("hidden1.linear", "hidden2.linear"):
        y = getattr(torch, activation)(y @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
    y = y @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(net(x), y)
    assert [name for name, _ in net.blocks()] == ["flatten", "hidden1", "hidden2", "classifier"]


def test_sigmoid_networks_start_with_gain():
    torch.manual_seed(0)
    fcn5 = MLP(shape=(1, 28, 28), classes=10, widths=[256] * 4, activation="sigmoid")
    assert parameters(fcn5) == 785 * 256 + 3 * 257 * 256 + 257 * 10
    for name, weight in fcn5.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        else:
            limit = 4 * (6 / sum(weight.shape)) ** 0.5
            assert 0.98 * limit < weight.abs().max() <= limit, name


@pytest.mark.parametrize("widths", [[0], [100, -1], [2.5], "100", 100, None, [True]])
def test_wrong_widths_are_refused(widths):
    with pytest.raises(ValueError, match=r"^model\.widths=.*; allowed: a list of positive whole numbers"):
        MLP(shape=(4,), classes=2, widths=widths)


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"^model\.activation=gelu: unknown; allowed: relu, tanh, sigmoid$"):
        MLP(shape=(4,), classes=2, activation="gelu")
