import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from runner.gradients.operations import OperationCount
from tests.models.test_contract import FAMILIES, MNIST, SLOW, build

NETWORKS = [*(name for name in FAMILIES if name not in SLOW), "mlp", "fcn5", "linear"]


@pytest.mark.parametrize("option", NETWORKS)
def test_counts_what_pytorch_counts(option: str):
    shape = (1, 28, 28) if option in (*MNIST, "mlp", "linear") else (3, 64, 64)
    net = build(option, shape).eval()
    inputs = torch.zeros(2, *shape)
    with torch.no_grad():
        with FlopCounterMode(display=False) as theirs:
            net(inputs)
        with OperationCount() as ours:
            net(inputs)
    assert ours.total == theirs.get_total_flops() > 0


class Product(nn.Module):
    """A product that no layer of PyTorch makes, as a network of one's own may have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x.transpose(1, 2)


def test_grouped_convolutions_and_bare_products_by_hand():
    net = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(2), nn.Linear(4, 5), Product())
    with torch.no_grad(), OperationCount() as counted:
        net(torch.zeros(3, 4, 4, 4))
    # A pixel of a group's output takes 2 x 3 x 3 multiply-adds; a row of the linear layer's input 4 x 5; the product of
    # 6 x 5 numbers with themselves 6 x 5 x 6.
    assert counted.total == 2 * 3 * (6 * 2 * 2 * 2 * 3 * 3 + 6 * 4 * 5 + 6 * 5 * 6)
