import torch
from torch.nn import functional

from models.dpn import STAGES, DualPath


def norm(state, name, x):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])


def test_block_adds_and_appends():
    torch.manual_seed(0)
    block = DualPath(20, 32, 12, 4, stride=1, project=False).double().eval()
    state, x = block.state_dict(), torch.randn(2, 20, 5, 5, dtype=torch.float64)
    y = torch.relu(norm(state, "norm1", functional.conv2d(x, state["conv1.weight"])))
    y = torch.relu(norm(state, "norm2", functional.conv2d(y, state["conv2.weight"], padding=1, groups=32)))
    y = norm(state, "norm3", functional.conv2d(y, state["conv3.weight"]))
    expected = torch.relu(torch.cat([x[:, :12] + y[:, :12], x[:, 12:], y[:, 12:]], dim=1))
    torch.testing.assert_close(block(x), expected)


def test_the_first_block_of_a_stage_projects():
    block = DualPath(20, 32, 12, 4, stride=2, project=True).eval()
    assert block(torch.randn(2, 20, 6, 6)).shape == (2, 12 + 2 * 4, 3, 3)


def test_dense_path_grows_like_the_paper():
    ends = [residual + (count + 1) * growth for count, _, residual, growth in STAGES]
    assert ends == [320, 672, 1528, 2560]
