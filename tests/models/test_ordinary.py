from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn

from models.base import Chain
from models.linear import Linear
from models.ordinary import adapt, arguments

SHAPE = (1, 4, 4)


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))


class Two(NamedTuple):
    outputs: Tensor
    more: Tensor


class Pair(Net):
    def forward(self, inputs: Tensor) -> Any:
        return Two(super().forward(inputs), inputs)


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Blocks(Net):
    block_names = ("body", "head")


class Swapped(Net):
    block_names = ("body",)


class Smoothed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)


class Regression(nn.Linear):
    classifies = False
    takes_numbers = True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1) - targets).square().mean()


def adapted(module: object, classes: int = 3, shape: tuple[int, ...] = SHAPE) -> Any:
    return adapt(module, "model=mine", shape, classes)


def test_cross_entropy_and_one_block_are_assumed():
    net = adapted(Net())
    outputs, targets = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])
    assert torch.equal(net.loss(outputs, targets), nn.functional.cross_entropy(outputs, targets))
    assert (int(net.errors(outputs, targets)), int(net.errors(outputs, targets, guesses=2))) == (1, 0)
    assert net.block_names == ("",)
    assert net.classifies


def test_trial_leaves_module_and_generators_alone():
    net, same = Net(), Net()
    same.load_state_dict(net.state_dict())
    before = torch.get_rng_state()
    adapted(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert net.state_dict().keys() == same.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True))


def test_lazy_layers_get_their_weights_from_the_seed():
    def build() -> Tensor:
        torch.manual_seed(0)
        return adapted(nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d(), nn.LazyLinear(3)))[2].weight.detach()

    assert build().shape == (3, 16)
    assert torch.equal(build(), build())


def test_own_loss_and_errors_stay():
    net = Smoothed()
    assert isinstance(adapted(net).loss, nn.CrossEntropyLoss)
    numbers = adapted(Regression(5, 1), classes=0, shape=(5,))
    assert float(numbers.loss(torch.ones(2, 1), torch.zeros(2))) == 1
    assert int(numbers.errors(torch.ones(2, 1), torch.zeros(2))) == 0


def test_chain_is_returned_as_it_is():
    chain = Linear(shape=SHAPE, classes=3)
    assert adapted(chain) is chain
    assert "loss" not in vars(chain)


def test_named_blocks_are_kept():
    assert adapted(Blocks()).block_names == ("body", "head")
    with pytest.raises(ValueError, match=r"its block_names \('body',\) are not the module"):
        adapted(Swapped())


@pytest.mark.parametrize(
    ("build", "wrong"),
    [
        (lambda: Net(4), r"returns outputs of shape \(2, 4\) for 2 samples of 3 classes; allowed: \(2, 3\), as with "),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 3)),
            r"cannot take inputs of shape \(1, 4, 4\) \(RuntimeError",
        ),
        (lambda: nn.ReLU(), "has no parameters to train"),
        (Frozen, "has no parameters to train"),
        (Pair, "returns a Two in training; allowed: modules that return one tensor"),
        (lambda: 5, "is a int; allowed: classes or functions that return an nn.Module"),
        (lambda: Halves(), r"parameter scale is torch.float16; allowed: torch.float32"),
    ],
)
def test_unfit_module_is_refused(build: Callable[[], object], wrong: str):
    with pytest.raises(ValueError, match=f"^model=mine: {wrong}"):
        adapted(build())


class Halves(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float16))


def test_numbers_need_a_loss():
    with pytest.raises(ValueError, match="has no loss, and the targets are numbers"):
        adapted(Net(), classes=0)


class Passing(Linear):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class Named:
    def __init__(self, num_classes: int, width: int = 3) -> None: ...


@pytest.mark.parametrize(
    ("target", "given", "told"),
    [
        (Linear, {}, {"shape": SHAPE, "classes": 3}),
        (Passing, {}, {"shape": SHAPE, "classes": 3}),
        (Net, {}, {"classes": 3}),
        (Named, {}, {"num_classes": 3}),
        (Named, {"num_classes": 5}, {}),
        (torchvision.models.resnet18, {}, {}),
        (torchvision.models.ResNet, {}, {"num_classes": 3}),
        (nn.Linear, {}, {}),
        (Chain, {}, {}),
    ],
)
def test_constructor_gets_what_it_names(target: Any, given: dict[str, int], told: dict[str, Any]):
    assert arguments(target, given, SHAPE, 3) == told


class Next(nn.Module):
    takes_tokens = True

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.table = nn.Embedding(5, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


def test_tokens_have_their_own_loss_and_errors():
    net: Any = adapt(Next(), "model=own", (4,), 5, tokens=True)
    with torch.no_grad():
        net.table.weight.copy_(torch.eye(5))
    tokens = torch.tensor([[0, 1, 2, 3], [4, 4, 4, 4]])
    assert float(net.errors(net(tokens), torch.tensor([[0, 1, 0, 0], [4, 4, 4, 0]]))) == 0.75
    assert net.loss(net(tokens), tokens).shape == ()
    with pytest.raises(ValueError, match=r"returns outputs of shape \(2, 4, 3\) .* allowed: \(2, 4, 5\)"):
        adapt(Next(3), "model=own", (4,), 5, tokens=True)
