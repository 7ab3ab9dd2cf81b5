from collections.abc import Callable

import pytest
import torch
from torch import nn

from algorithms.base import Batch
from data.digits import Digits
from models.base import Chain
from models.resnet import ResNet
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from tests.drawing import Drawing

DIGITS = Digits(limit_train=64, limit_test=20)
CROPPED = Digits(limit_train=64, limit_test=20, augment=True)


def resnet() -> Chain:
    torch.manual_seed(0)
    return ResNet(depth=8, shape=(1, 8, 8), classes=10)


def oracle(module: nn.Module | None = None, digits: Digits = DIGITS, seed: int = 0, **options) -> NetworkOracle:
    return NetworkOracle(Replica(resnet() if module is None else module), digits.train, seed=seed, **options)


def batch(*ids: int, number: int = 0, epoch: int = 0) -> Batch:
    return Batch(number, epoch, torch.tensor(ids, dtype=torch.int64))


def test_gradient_is_autograds_at_given_weights():
    asked = oracle()
    w = asked.replica.weights + 0.01
    ids = torch.arange(16)
    g = asked.gradient(w, batch(*ids.tolist())).clone()

    network = resnet()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.01)
    inputs, targets = DIGITS.train.batch(ids)
    nn.functional.cross_entropy(network(inputs), targets).backward()
    for (name, ours), p in zip(asked.replica.named_weights(g), network.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(ours, p.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert torch.equal(asked.replica.weights, w)


def test_a_gradient_starts_from_zero_each_time():
    asked = oracle()
    w = asked.replica.weights.clone()
    first = asked.gradient(w, batch(1, 2, 3)).clone()
    asked.gradient(w, batch(4, 5))
    assert torch.equal(asked.gradient(w, batch(1, 2, 3)), first)


def test_empty_batches_have_zero_gradient():
    asked = oracle()
    asked.gradient(asked.replica.weights, batch(1, 2, 3))
    statistics = asked.replica.statistics.clone()
    totals = asked.totals.clone()
    assert not asked.gradient(asked.replica.weights, batch()).any()
    assert torch.equal(asked.replica.statistics, statistics)
    assert torch.equal(asked.totals, totals)


def test_totals_sum_until_taken():
    asked = oracle()
    w = asked.replica.weights
    expected = torch.zeros(3, dtype=torch.float64)
    for ids in ((0, 1, 2, 3, 4), (5, 6)):
        asked.gradient(w, batch(*ids))
        inputs, targets = DIGITS.train.batch(torch.tensor(ids))
        module = resnet()
        outputs = module(inputs)
        loss, errors = module.loss(outputs, targets).item(), module.errors(outputs, targets).item()
        expected += torch.tensor([loss * len(ids), errors, len(ids)], dtype=torch.float64)
    taken = asked.take_totals()
    torch.testing.assert_close(taken, expected, rtol=1e-5, atol=1e-6)
    assert taken[2] == 7
    assert not asked.totals.any()


def test_reference_gradients_leave_totals():
    """At other weights, whose loss would be reported as the iterate's."""
    asked = oracle()
    w = asked.replica.weights.clone()
    asked.gradient(w, batch(1, 2, 3))
    totals = asked.totals.clone()
    reference = asked.reference_gradient(w + 0.1, batch(4, 5)).clone()
    assert torch.equal(asked.totals, totals)
    assert torch.equal(asked.gradient(w + 0.1, batch(4, 5)), reference)
    assert asked.totals[2] == totals[2] + 2


def test_gradient_sums_leave_totals():
    asked = oracle()
    asked.gradient(asked.replica.weights, batch(1, 2, 3))
    totals = asked.totals.clone()
    asked.gradient_sum(asked.replica.weights, batch(4, 5))
    assert torch.equal(asked.totals, totals)


def test_augmentation_depends_on_seed_and_epoch():
    def gradient(seed: int, **given: int) -> torch.Tensor:
        asked = oracle(digits=CROPPED, seed=seed)
        return asked.gradient(asked.replica.weights, batch(*range(32), **given)).clone()

    reference = gradient(0, epoch=1)
    assert torch.equal(gradient(0, epoch=1, number=9), reference)
    assert not torch.equal(gradient(0, epoch=2), reference)
    assert not torch.equal(gradient(1, epoch=1), reference)


class Dropped(Chain):
    """A network that drops half of what it sees."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [("flat", nn.Flatten()), ("drop", nn.Dropout(0.5)), ("out", nn.Linear(64, 10))]
        super().__init__(layers)


def functional_dropout() -> nn.Module:
    torch.manual_seed(0)
    return Drawing(shape=(1, 8, 8), classes=10)


@pytest.mark.parametrize("network", [Dropped, functional_dropout], ids=["layers", "functions"])
def test_dropout_depends_on_seed_and_batch(network: Callable[[], nn.Module]):
    def gradient(seed: int, number: int) -> torch.Tensor:
        torch.manual_seed(1234 + number)
        asked = oracle(network(), seed=seed)
        torch.manual_seed(99)
        return asked.gradient(asked.replica.weights, batch(*range(8), number=number)).clone()

    reference = gradient(0, 5)
    assert torch.equal(gradient(0, 5), reference)
    assert not torch.equal(gradient(0, 6), reference)
    assert not torch.equal(gradient(1, 5), reference)


@pytest.mark.parametrize("network", [Dropped, functional_dropout], ids=["layers", "functions"])
def test_pieces_of_a_batch_drop_different_units(network: Callable[[], nn.Module]):
    """Of workers' shares, and where a method cuts its batch; a second gradient on the same samples drops the same."""
    asked = oracle(network(), digits=Digits(limit_train=64, limit_test=20))
    ids = torch.tensor([5, 5, 5, 5])
    whole = Batch(3, 0, ids, size=4)

    def gradient(batch: Batch) -> torch.Tensor:
        return asked.gradient(asked.replica.weights, batch).clone()

    reference = gradient(whole)
    assert torch.equal(gradient(whole), reference)
    assert torch.equal(gradient(Batch(3, 0, ids)), reference), "the first worker's share is a whole batch's"
    assert not torch.equal(gradient(whole._replace(piece=1)), reference)
    ids = torch.tensor([5, 6, 7, 8])
    # Labels and images alike: only what is dropped can differ.
    asked.split.inputs[5:9], asked.split.targets[5:9] = asked.split.inputs[5].clone(), asked.split.targets[5].clone()
    halves = [gradient(whole._replace(ids=half)) for half in ids.tensor_split(2)]
    assert not torch.equal(*halves)
    assert torch.equal(gradient(whole._replace(ids=ids[2:])), halves[1])


def test_choices_depend_on_batch_and_piece():
    def choices(batch: Batch) -> torch.Tensor:
        return torch.rand(3, generator=oracle().generator(batch))

    first = Batch(3, 0, torch.arange(4), size=4)
    assert torch.equal(choices(first), choices(first))
    assert not torch.equal(choices(first._replace(piece=1)), choices(first))
    assert not torch.equal(choices(first._replace(ids=first.ids[:2])), choices(first))


def test_asking_draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    asked = oracle(digits=CROPPED)
    torch.manual_seed(0)
    asked.gradient(asked.replica.weights, batch(1, 2, 3))
    assert torch.equal(torch.rand(1), expected)


def test_bf16_gradient_is_close_and_float32():
    plain, half = oracle(), oracle(precision="bf16")
    ids = batch(*range(32))
    expected = plain.gradient(plain.replica.weights, ids)
    got = half.gradient(half.replica.weights, ids)
    assert got.dtype == torch.float32
    assert not torch.equal(got, expected)
    assert float((got - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_arrive_in_memory_format(channels_last: bool):
    seen = []

    class Watching(Chain):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs.is_contiguous(memory_format=torch.channels_last))
            return super().forward(inputs)

    module = Watching([("conv", nn.Conv2d(3, 2, 3)), ("flat", nn.Flatten()), ("out", nn.Linear(8, 2))])
    asked = NetworkOracle(Replica(module, channels_last=channels_last), DIGITS.train, seed=0)
    asked.loss(torch.randn(5, 3, 4, 4), torch.zeros(5, dtype=torch.int64))
    assert seen == [channels_last]


@pytest.mark.parametrize("size", [1, 7, 20, 64])
def test_micro_batches_sum_to_whole_gradient(size: int):
    def network() -> Chain:
        torch.manual_seed(0)
        return ResNet(depth=8, shape=(1, 8, 8), classes=10, batch_norm=False)

    whole, pieces = oracle(network(), CROPPED), oracle(network(), CROPPED, micro_batch=size)
    ids = batch(*range(60), epoch=1)
    expected = whole.gradient(whole.replica.weights, ids)
    got = pieces.gradient(pieces.replica.weights, ids)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pieces.totals, whole.totals, rtol=1e-6, atol=0)
    assert torch.equal(got, expected) == (size >= 60)


def test_batch_norm_averages_micro_batch_statistics():
    pieces, alone = oracle(micro_batch=8), oracle()
    w = alone.replica.weights
    pieces.gradient(w, batch(*range(20)))
    # 20 samples in pieces of at most 8: 7, 7, 6.
    gradient, statistics = torch.zeros_like(w), torch.zeros_like(alone.replica.statistics)
    for ids in (range(7), range(7, 14), range(14, 20)):
        gradient += alone.gradient(w, batch(*ids)) * (len(ids) / 20)
        statistics += alone.replica.statistics * (len(ids) / 20)
    torch.testing.assert_close(pieces.replica.gradient, gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pieces.replica.statistics, statistics, rtol=1e-5, atol=1e-6)


def test_pieces_bound_the_memory():
    def most_held(micro_batch: int | None) -> int:
        """Largest number of bytes kept for back-propagation at any time."""
        held, most = 0, 0

        class Kept:
            def __init__(self, tensor: torch.Tensor) -> None:
                nonlocal held, most
                self.tensor, self.bytes = tensor, tensor.nbytes
                held += self.bytes
                most = max(most, held)

            def __del__(self) -> None:
                nonlocal held
                held -= self.bytes

        asked = oracle(micro_batch=micro_batch)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            asked.gradient(asked.replica.weights, batch(*range(64)))
        return most

    # Weights are kept for back-propagation too, whatever the batch.
    weights = most_held(2) - 2 * (most_held(4) - most_held(2)) // 2
    assert most_held(8) - weights < 1.1 * (most_held(None) - weights) / 8


def test_choices_are_a_function_of_seed_and_batch():
    def drawn(seed: int, number: int) -> list[int]:
        return torch.randperm(1000, generator=oracle(seed=seed).generator(batch(1, number=number))).tolist()

    assert drawn(0, 3) == drawn(0, 3)
    assert len({tuple(drawn(seed, number)) for seed in (0, 1) for number in (3, 4)}) == 4
