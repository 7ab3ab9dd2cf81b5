import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.base import Chain


def chain() -> Chain:
    torch.manual_seed(0)
    return Chain(
        [("stem", nn.Linear(3, 4)), ("stage1.0", nn.Tanh()), ("stage1.1", nn.Linear(4, 5)), ("head", nn.Linear(5, 2))]
    )


def test_blocks_run_in_order():
    net, inputs = chain(), torch.randn(6, 3)
    assert [name for name, _ in net.blocks()] == ["stem", "stage1.0", "stage1.1", "head"]
    assert [key for key in net.state_dict() if key.endswith("weight")] == [
        "stem.weight",
        "stage1.1.weight",
        "head.weight",
    ]
    stem, middle, head = (net.get_submodule(name) for name in ("stem", "stage1.1", "head"))
    by_hand = head(middle(torch.tanh(stem(inputs))))
    assert torch.equal(net(inputs), by_hand)


def test_a_copy_runs_its_own_blocks():
    net, inputs = chain(), torch.randn(6, 3)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.get_parameter("head.bias").add_(1.0)
    torch.testing.assert_close(twin(inputs), net(inputs) + 1.0)


def test_two_blocks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two blocks are named 'a'"):
        Chain([("a", nn.ReLU()), ("a", nn.ReLU())])


def test_loss_and_errors_by_hand():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    targets = torch.tensor([0, 0, 1])
    by_hand = -functional.log_softmax(outputs, dim=1)[torch.arange(3), targets].mean()
    torch.testing.assert_close(chain().loss(outputs, targets), by_hand)
    errors = chain().errors(outputs, targets)
    assert (errors.item(), errors.dtype, errors.shape) == (2, torch.int64, ())


def test_errors_among_several_guesses():
    outputs = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).repeat(4, 1)
    wrong = [chain().errors(outputs, torch.arange(4), guesses=guesses) for guesses in (1, 2, 3, 4, 5)]
    assert [errors.item() for errors in wrong] == [3, 2, 1, 0, 0]
    assert (wrong[1].dtype, wrong[1].shape) == (torch.int64, ())
