from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from algorithms.base import Batch
from data.base import Split
from data.text import windows
from models.base import Chain
from models.gpt import GPT
from models.resnet import ResNet
from runner.gradients import sample_norms
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from runner.gradients.sample_norms import SampleNorms, contributions, squared_norms

B = 12


def images(size: int = 8) -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split(torch.randn(B, 3, size, size, generator=generator), torch.arange(B) % 5)


def convolutions() -> Chain:
    """Every option of a convolution, with an activation in place; no batch norm."""
    torch.manual_seed(0)
    return Chain(
        [
            ("strided", nn.Conv2d(3, 8, 3, padding=1, stride=2)),
            ("relu", nn.ReLU(inplace=True)),
            ("grouped", nn.Conv2d(8, 12, 3, groups=4, padding="same", dilation=2)),
            ("tanh", nn.Tanh()),
            ("depthwise", nn.Conv2d(12, 12, 3, groups=12, padding=1)),
            ("reflected", nn.Conv2d(12, 64, 2, padding=1, padding_mode="reflect", bias=False)),
            ("pointwise", nn.Conv2d(64, 64, 1)),
            ("pool", nn.AdaptiveAvgPool2d(2)),
            ("flat", nn.Flatten()),
            ("classifier", nn.Linear(256, 5)),
        ]
    )


def sequences() -> Chain:
    """A linear layer with several positions a sample, and a convolution in one dimension."""
    torch.manual_seed(0)
    rows = nn.Flatten(1, 2)
    layers = [("rows", rows), ("each", nn.Linear(8, 6)), ("line", nn.Conv1d(24, 7, 3, padding=1, stride=2))]
    return Chain([*layers, ("flat", nn.Flatten()), ("classifier", nn.Linear(21, 5, bias=False))])


def oracle(network: Chain, *, channels_last: bool = False, **options: Any) -> NetworkOracle:
    return NetworkOracle(Replica(network, channels_last=channels_last), images(), seed=0, **options)


def single_norms(asked: NetworkOracle) -> Tensor:
    """(layers, B): norms of the samples' gradients, by torch.func."""
    network: Any = asked.replica.module
    weights = {name: value.detach().contiguous() for name, value in network.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return network.loss(functional_call(network, weights, (x[None],)), y[None])

    inputs, targets = asked.split.batch(torch.arange(B))
    found = vmap(grad(loss), (None, 0, 0))(weights, inputs, targets)
    rows = []
    for layer in asked.replica.layers:
        own = [
            value.flatten(1).square().sum(1) for name, value in found.items() if name.rpartition(".")[0] == layer.name
        ]
        rows.append(torch.stack(own).sum(0).sqrt())
    return torch.stack(rows)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("make", [convolutions, sequences])
@pytest.mark.parametrize("samples", [None, 1, 7, 100])
def test_mean_norms_are_those_of_single_gradients(make: Any, channels_last: bool, samples: int | None):
    asked = oracle(make(), channels_last=channels_last)
    expected = single_norms(asked)[:, :samples].mean(1)
    _, norms = asked.gradient_and_norms(asked.replica.weights, Batch(0, 0, torch.arange(B)), samples)
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [None, 3, 7])
def test_pieces_and_small_blocks_change_nothing(samples: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sample_norms, "BLOCK", 5000)
    asked = oracle(convolutions(), micro_batch=5)
    expected = single_norms(asked)[:, :samples].mean(1)
    _, norms = asked.gradient_and_norms(asked.replica.weights, Batch(0, 0, torch.arange(B)), samples)
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=1e-6)


def words() -> Split:
    # Few tokens for many positions: the same row of the embedding is used several times in a window.
    return windows(torch.randint(5, (B * 6 + 1,), generator=torch.Generator().manual_seed(2)), 6, None, "limit")


# What `vmap` says of attention: how fast it is.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("block", [2**21, 200])
@pytest.mark.parametrize("samples", [None, 7])
def test_norms_of_a_language_model(samples: int | None, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sample_norms, "BLOCK", block)
    torch.manual_seed(0)
    network = GPT(shape=(6,), classes=5, layers=1, heads=2, width=8)
    asked = NetworkOracle(Replica(network), words(), seed=0)
    expected = single_norms(asked)[:, :samples].mean(1)
    _, norms = asked.gradient_and_norms(asked.replica.weights, Batch(0, 0, torch.arange(B)), samples)
    assert expected.min() > 0
    torch.testing.assert_close(norms, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("samples", [B, 5])
@pytest.mark.parametrize("shape", [(B, 6), (B,), (B, 2, 3)])
@pytest.mark.parametrize("padding", [None, 3])
def test_embedding_norms_are_its_contributions(padding: int | None, shape: tuple[int, ...], samples: int):
    torch.manual_seed(0)
    module = nn.Embedding(5, 4, padding_idx=padding)
    tokens = torch.randint(5, shape)
    outputs = module(tokens)
    gradients = torch.randn_like(outputs)
    outputs.backward(gradients)
    (parts,) = contributions(module, tokens, gradients)
    torch.testing.assert_close(parts.sum(0), module.weight.grad)
    squares = squared_norms(module, tokens, gradients, samples)
    torch.testing.assert_close(squares, parts[:samples].flatten(1).square().sum(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("normal", "shape"), [((4,), (B, 4)), ((4,), (B, 6, 4)), ((3, 4), (B, 2, 3, 4))])
def test_layer_norm_contributions_sum_to_gradient(normal: tuple[int, ...], shape: tuple[int, ...], bias: bool):
    torch.manual_seed(0)
    module = nn.LayerNorm(list(normal), bias=bias)
    inputs = torch.randn(shape) * 3 + 1
    outputs = module(inputs)
    gradients = torch.randn_like(outputs)
    outputs.backward(gradients)
    parts = contributions(module, inputs, gradients)
    for part, p in zip(parts, module.parameters(), strict=True):
        torch.testing.assert_close(part.sum(0), p.grad)
    squares = squared_norms(module, inputs, gradients, 5)
    torch.testing.assert_close(squares, sum(part[:5].flatten(1).square().sum(1) for part in parts))


def test_shared_weights_are_refused():
    network = GPT(shape=(6,), classes=5, layers=1, heads=2, width=8, tied=True)
    with pytest.raises(ValueError, match=r"embedding.token and head share a weight: .*; allowed: .* model.tied=false"):
        SampleNorms(network, Replica(network).layers)


@pytest.mark.parametrize("make", [convolutions, lambda: ResNet(shape=(3, 8, 8), classes=5, depth=8)])
def test_norms_leave_everything_else_unchanged(make: Any):
    torch.manual_seed(0)
    plain = oracle(make())
    torch.manual_seed(0)
    asked = oracle(make())
    batch = Batch(0, 0, torch.arange(B))
    expected = plain.gradient(plain.replica.weights, batch)
    g, _ = asked.gradient_and_norms(asked.replica.weights, batch, 5)
    assert torch.equal(g, expected)
    assert torch.equal(asked.replica.statistics, plain.replica.statistics)
    assert torch.equal(asked.totals, plain.totals)
    # Nothing stays hooked on.
    assert not any(module._forward_hooks for module in asked.replica.module.modules())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [1.0, 0.1])
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 4), (6,)),
        (nn.Linear(6, 4), (3, 6)),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), (4, 7, 7)),
        (nn.Conv2d(4, 64, 3, padding=1), (4, 2, 2)),
        (nn.Conv1d(4, 6, 3), (4, 9)),
        (nn.BatchNorm1d(5), (5,)),
        (nn.BatchNorm1d(5), (5, 7)),
        (nn.BatchNorm2d(5), (5, 4, 3)),
        (nn.BatchNorm2d(5, track_running_stats=False), (5, 4, 3)),
    ],
)
def test_contributions_sum_to_the_batchs_gradient(module: Any, shape: tuple[int, ...], momentum: float, training: bool):
    torch.manual_seed(0)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.momentum = momentum
        nn.init.normal_(module.weight)
    module.zero_grad()
    inputs = torch.randn(B, *shape)
    if training:
        module.train()
    else:
        module.eval()
    outputs = module(inputs)
    direction = torch.randn_like(outputs)
    outputs.backward(direction)
    parts = contributions(module, inputs, direction)
    for part, p in zip(parts, module.parameters(), strict=True):
        assert part.shape == (B, *p.shape)
        torch.testing.assert_close(part.sum(0), p.grad, rtol=1e-4, atol=1e-5)
    squares = torch.stack([part.flatten(1).square().sum(1) for part in parts]).sum(0)
    torch.testing.assert_close(squared_norms(module, inputs, direction, B), squares, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(squared_norms(module, inputs, direction, 5), squares[:5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batch_norm_contributions_sum_to_gradient(channels_last: bool, monkeypatch: pytest.MonkeyPatch):
    """In a whole training step, as the hooks see it."""
    torch.manual_seed(0)
    asked = oracle(ResNet(shape=(3, 8, 8), classes=5, depth=8), channels_last=channels_last)
    found = {}

    def noting(module: nn.Module, inputs: Tensor, gradients: Tensor, samples: int) -> Tensor:
        found[module] = contributions(module, inputs, gradients)
        return squared_norms(module, inputs, gradients, samples)

    monkeypatch.setattr(sample_norms, "squared_norms", noting)
    g, norms = asked.gradient_and_norms(asked.replica.weights, Batch(0, 0, torch.arange(B)))
    own = {layer.name: (layer, mean) for layer, mean in zip(asked.replica.layers, norms, strict=True)}
    names = {module: name for name, module in asked.replica.module.named_modules()}
    assert {names[module] for module in found} == own.keys()
    for module, parts in found.items():
        for part, p in zip(parts, module.parameters(recurse=False), strict=True):
            assert p.grad is not None
            torch.testing.assert_close(part.sum(0), p.grad, rtol=1e-3, atol=1e-6)
        layer, mean = own[names[module]]
        single = B * torch.stack([part.flatten(1).square().sum(1) for part in parts]).sum(0).sqrt()
        torch.testing.assert_close(mean, single.mean(), rtol=1e-4, atol=1e-6)
        assert mean >= g[layer.low : layer.high].norm() * (1 - 1e-5)


def test_bf16_norms_are_roughly_those_of_float32():
    plain, half = oracle(convolutions()), oracle(convolutions(), precision="bf16")
    batch = Batch(0, 0, torch.arange(B))
    _, expected = plain.gradient_and_norms(plain.replica.weights, batch)
    _, norms = half.gradient_and_norms(half.replica.weights, batch)
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms, expected, rtol=0.1, atol=1e-3)


def test_an_empty_batch_has_zero_norms():
    asked = oracle(convolutions())
    g, norms = asked.gradient_and_norms(asked.replica.weights, Batch(0, 0, torch.arange(0)), 4)
    assert not g.any()
    assert torch.equal(norms, torch.zeros(len(asked.replica.layers)))


def test_an_unknown_layer_is_named():
    network = Chain([("norm", nn.GroupNorm(1, 3)), ("flat", nn.Flatten()), ("out", nn.Linear(192, 5))])
    replica = Replica(network)
    expected = r"model: no norms .* layer norm \(GroupNorm\); allowed: linear, convolution, embedding, batch-"
    with pytest.raises(ValueError, match=expected):
        SampleNorms(network, replica.layers)


def test_a_layer_that_runs_twice_is_refused():
    class Twice(Chain):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs + super().forward(inputs).mean())

    asked = oracle(Twice([("flat", nn.Flatten()), ("out", nn.Linear(192, 5))]))
    with pytest.raises(ValueError, match="Linear runs twice"):
        asked.gradient_and_norms(asked.replica.weights, Batch(0, 0, torch.arange(4)))
