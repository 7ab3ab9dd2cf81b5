from pathlib import Path

import pytest
import torch
from torch import nn

from models.base import Chain
from models.gpt import GPT
from models.mlp import MLP
from models.resnet import ResNet
from runner.gradients.replica import Replica, running_average
from tests.trial import train

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet(seed: int = 0) -> Chain:
    torch.manual_seed(seed)
    return ResNet(depth=8, shape=(3, 16, 16), classes=10)


both = pytest.mark.parametrize("channels_last", [False, True])


@both
def test_flattening_changes_no_value(channels_last: bool):
    before = {name: value.clone() for name, value in resnet().state_dict().items()}
    replica = Replica(resnet(), channels_last=channels_last)
    assert all(torch.equal(value, before[name]) for name, value in replica.module.state_dict().items())
    assert replica.weights.numel() == sum(p.numel() for p in resnet().parameters())


@both
def test_parameters_are_views_of_flat_vectors(channels_last: bool):
    replica = Replica(resnet(), channels_last=channels_last)
    replica.check_aliasing()
    replica.weights.fill_(0.25)
    assert all(bool((p == 0.25).all()) for p in replica.module.parameters())
    replica.module(IMAGES).sum().backward()
    total = sum(float(p.grad.double().square().sum()) for p in replica.module.parameters() if p.grad is not None)
    assert total > 0
    assert float(replica.gradient.double().square().sum()) == pytest.approx(total)
    replica.check_aliasing()


@pytest.mark.parametrize(
    "break_it",
    [
        lambda module: module.double().float(),
        lambda module: module.to(memory_format=torch.channels_last),
        lambda module: module.zero_grad(set_to_none=True),
    ],
    ids=["converted", "another memory format", "gradients dropped"],
)
def test_lost_aliasing_is_found(break_it):
    replica = Replica(resnet())
    break_it(replica.module)
    with pytest.raises((RuntimeError, AssertionError)):
        replica.check_aliasing()


def test_channels_last_weights_are_permuted_views():
    plain, last = Replica(resnet()), Replica(resnet(), channels_last=True)
    convolutions = [p for p in last.module.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert convolutions
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    assert not torch.equal(plain.weights, last.weights)
    logical = [dict(replica.named_weights(replica.weights)) for replica in (plain, last)]
    assert logical[0].keys() == logical[1].keys()
    assert all(torch.equal(value, logical[1][name]) for name, value in logical[0].items())
    torch.testing.assert_close(last.module(IMAGES), plain.module(IMAGES), rtol=1e-4, atol=1e-5)


@both
def test_gradients_equal_the_unflattened_networks(channels_last: bool):
    network = resnet()
    network(IMAGES).square().sum().backward()
    replica = Replica(resnet(), channels_last=channels_last)
    replica.module(IMAGES).square().sum().backward()
    ours = dict(replica.named_weights(replica.gradient))
    for name, p in network.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-3)


def test_statistics_are_mean_and_unbiased_variance():
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    replica = Replica(nn.Sequential(linear, nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3)))
    first, second = torch.randn(8, 4), torch.randn(5, 4)
    replica.module(first)
    replica.module(second)  # each batch's own, not an average
    seen = linear(second)
    names = [name for name, _ in replica.named_statistics(replica.statistics)]
    assert names == ["1.running_mean", "1.running_var", "3.running_mean", "3.running_var"]
    values = dict(replica.named_statistics(replica.statistics))
    torch.testing.assert_close(values["1.running_mean"], seen.mean(0))
    torch.testing.assert_close(values["1.running_var"], seen.var(0, correction=1))


def test_running_average_is_pytorchs():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    replica = Replica(nn.Sequential(nn.BatchNorm1d(3)))
    running = replica.initial_statistics()
    assert running.tolist() == [0, 0, 0, 1, 1, 1]
    for _ in range(4):
        batch = 2 + 3 * torch.randn(7, 3)
        norm(batch)
        replica.module(batch)
        running_average(running, replica.statistics)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(running, torch.cat([norm.running_mean, norm.running_var]))


def test_no_batch_norm_no_statistics():
    replica = Replica(MLP(shape=(4,), classes=3, widths=[5]))
    assert replica.statistics.numel() == 0
    assert replica.initial_statistics().numel() == 0
    assert list(replica.named_statistics(replica.statistics)) == []


@both
def test_state_dict_loads_into_fresh_network(channels_last: bool, tmp_path: Path):
    overrides = ("algorithm=asgd", "model=resnet8", "dataset.limit_train=128", "run.epochs=1")
    run = train(*overrides, f"run.channels_last={str(channels_last).lower()}", folder=tmp_path)
    replica, weights, statistics = (
        run.components.oracle.replica,
        run.executor.weights(),
        run.executor.running_statistics(),
    )
    state = replica.state_dict(weights, statistics, updates=run.control.updates)
    fresh = ResNet(depth=8, shape=(1, 8, 8), classes=10)
    fresh.load_state_dict(state, strict=True)
    fresh.eval()
    inputs, targets = run.components.dataset.test.batch(torch.arange(len(run.components.dataset.test)))
    outputs = fresh(inputs)
    assert 100 * int(fresh.errors(outputs, targets)) / len(targets) == run.notes.rows[-1]["test_error"]
    assert fresh.loss(outputs, targets).item() == pytest.approx(run.notes.rows[-1]["test_loss"], rel=1e-5)
    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {4}
    assert all(value.is_contiguous() for value in state.values())


def test_shared_weights_are_the_first_layers():
    first, other, last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
    other.weight = first.weight
    replica = Replica(nn.Sequential(first, other, last))
    # 9 weights and 3 biases, then 3 biases of the layer that shares, then 6 and 2.
    assert [tuple(layer) for layer in replica.layers] == [("0", 0, 12), ("1", 12, 15), ("2", 15, 23)]
    assert replica.weights.numel() == 23


def test_shared_weights_have_every_name_in_state_dict():
    network = GPT(shape=(6,), classes=5, layers=1, heads=2, width=8, tied=True)
    replica = Replica(network)
    state = replica.state_dict(torch.arange(float(replica.weights.numel())), replica.statistics, updates=0)
    assert torch.equal(state["head.weight"], torch.arange(40.0).view(5, 8))
    assert torch.equal(state["head.weight"], state["embedding.token.weight"])


def test_unused_weights_have_no_gradient():
    used, unused = nn.Linear(2, 2), nn.Linear(2, 2)
    replica = Replica(nn.ModuleList([used, unused]))
    replica.gradient.fill_(1.0)
    replica.backpropagate(used(torch.ones(1, 2)).sum())
    assert replica.gradient.tolist() == [1.0] * 6 + [0.0] * 6


@both
def test_gradients_are_collected_elsewhere(channels_last: bool):
    replica = Replica(resnet(), channels_last=channels_last)
    replica.backpropagate(replica.module(IMAGES).sum())
    first, vectors = replica.gradient, [torch.full_like(replica.gradient, 7.0) for _ in range(2)]
    expected = first.clone()
    for flat in (*vectors, first, vectors[0]):
        replica.collect_in(flat.fill_(7.0))
        replica.check_aliasing()
        replica.backpropagate(replica.module(IMAGES).sum())
        assert replica.gradient is flat
        assert torch.equal(flat, expected)
