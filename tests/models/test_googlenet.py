import torch
from torch import Tensor
from torch.nn import functional

from models.googlenet import GoogLeNet, Inception


def unit(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    y = functional.conv2d(x, weight, state[f"{name}.conv.bias"], padding=weight.shape[-1] // 2)
    mean, var = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
    return torch.relu(functional.batch_norm(y, mean, var, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]))


def test_an_inception_module_written_out():
    torch.manual_seed(0)
    module = Inception(6, (2, 3, 4, 5, 7, 8)).double().eval()
    state, x = module.state_dict(), torch.randn(2, 6, 5, 5, dtype=torch.float64)
    for name, value in state.items():
        if "norm" in name and value.is_floating_point():
            value.uniform_(0.5, 1.5)
    expected = [
        unit(state, "branch1", x),
        unit(state, "branch3.conv", unit(state, "branch3.reduce", x)),
        unit(state, "branch5.conv2", unit(state, "branch5.conv1", unit(state, "branch5.reduce", x))),
        unit(state, "branch_pool.conv", functional.max_pool2d(x, 3, stride=1, padding=1)),
    ]
    torch.testing.assert_close(module(x), torch.cat(expected, dim=1))
    assert module(x).shape == (2, 2 + 4 + 7 + 8, 5, 5)


def test_blocks_and_sizes():
    net = GoogLeNet(shape=(3, 32, 32), classes=10).eval()
    x, sizes = torch.randn(1, 3, 32, 32), {}
    for name, block in net.blocks():
        x = block(x)
        sizes[name] = tuple(x.shape[1:])
    assert list(sizes)[:4] == ["stem", "inception3.a", "inception3.b", "pool3"]
    # Table 1 of the paper, at 1/7 of its resolution times 8.
    assert sizes["inception3.a"] == (256, 32, 32)
    assert sizes["inception3.b"] == (480, 32, 32)
    assert sizes["inception4.a"] == (512, 16, 16)
    assert sizes["inception4.d"] == (528, 16, 16)
    assert sizes["inception4.e"] == (832, 16, 16)
    assert sizes["inception5.b"] == (1024, 8, 8)
