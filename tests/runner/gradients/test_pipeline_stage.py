"""Modules of a small network, beside plain autograd on the network itself."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.pipeline import Features
from data.digits import Digits
from models.base import Chain
from runner.config.seeds import derive
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.gradients.replica import Replica
from tests.drawing import Drawing

DIGITS = Digits(limit_train=16, limit_test=4)


class Blocks(Chain):
    """Two linear blocks with batch norm between them, and dropout in both where asked."""

    def __init__(self, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        drop = [("drop1", nn.Dropout(dropout))], [("drop2", nn.Dropout(dropout))]
        first = [("flat", nn.Flatten()), ("first", nn.Linear(64, 6)), ("norm", nn.BatchNorm1d(6))]
        super().__init__([*first, *(drop[0] * bool(dropout)), ("second", nn.Linear(6, 8)), *(drop[1] * bool(dropout)),
                          ("third", nn.Linear(8, 10))])  # fmt: skip


def partition(dropout: float = 0.0, seed: int = 3) -> Partition:
    oracle = NetworkOracle(Replica(Blocks(dropout)), DIGITS.train, seed=seed)
    return Partition(oracle, 2, ["second"], (1, 8, 8), 10)


def features(number: int = 0) -> Features:
    inputs, targets = DIGITS.train.batch(torch.arange(8))
    return Features(number, inputs, targets)


def both_tapes(cut: Partition, number: int = 0) -> tuple[Any, Any]:
    """Return the tapes of both modules on one batch."""
    first, last = cut.stages
    fed = features(number)
    below = first.record(first.weights, fed, track=False)
    return below, last.record(last.weights, fed._replace(inputs=below.outputs), track=False)


def test_chained_backward_passes_are_back_propagation():
    cut = partition()
    below, above = both_tapes(cut)
    last, delta = above.backward(None)
    last = last.clone()
    first, nothing = below.backward(delta)
    assert nothing is None, "nobody is before the first module"
    network = Blocks()
    inputs, targets = DIGITS.train.batch(torch.arange(8))
    nn.functional.cross_entropy(network(inputs), targets).backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(torch.cat([first, last]), expected)


def test_playing_equals_recording():
    cut = partition()
    stage = cut.stages[0]
    recorded = stage.record(stage.weights, features(), track=False).outputs
    assert torch.equal(stage.play(stage.weights, features(), track=False), recorded)


def test_given_weights_are_used():
    """Those of the replica stay as they are, and play no part."""
    cut = partition()
    stage = cut.stages[0]
    before = stage.weights.clone()
    moved = stage.play(stage.weights + 1, features(), track=False)
    assert torch.equal(stage.weights, before)
    stage.weights.add_(1)
    assert torch.equal(stage.play(stage.weights, features(), track=False), moved)


def test_writes_before_backward_take_effect():
    """A stale tape goes back through the weights as they are by then, as methods without a stash mean it."""
    cut = partition()
    _, above = both_tapes(cut)
    last = cut.stages[1]
    inputs = above._inputs.detach()
    names = [name for name, _ in last.blocks[0].named_parameters()]
    assert names == ["weight", "bias"]
    shift = 0.5
    w2, b2, w3, b3 = (p.detach().clone() for p in [*last.blocks[0].parameters(), *last.blocks[1].parameters()])
    last.weights.add_(shift)
    _, delta = above.backward(None)
    # The loss's slope is that of the forward pass; what it goes back through are the new weights.
    logits = (inputs @ w2.T + b2) @ w3.T + b3
    targets = features().targets
    slope = (logits.softmax(1) - nn.functional.one_hot(targets, 10)) / len(targets)
    torch.testing.assert_close(delta, slope @ (w3 + shift) @ (w2 + shift))


def test_running_statistics_follow_tracked_passes():
    cut = partition()
    stage = cut.stages[0]
    inputs = features().inputs.flatten(1)
    linear = stage.blocks[1]
    z = linear(inputs).detach()
    stage.play(stage.weights, features(), track=False)
    assert torch.equal(stage.running, torch.tensor([0.0] * 6 + [1.0] * 6))
    stage.play(stage.weights, features(), track=True)
    expected = torch.cat([0.1 * z.mean(0), 0.9 + 0.1 * z.var(0)])
    torch.testing.assert_close(stage.running, expected)


def test_running_statistics_learn_of_a_batch_once():
    """Of micro-batches of 6 and 2 samples by their mean; an empty one that follows is not played."""
    stage = partition().stages[0]
    fed = features()
    for piece, part in enumerate((slice(0, 6), slice(6, 8))):
        share = (part.stop - part.start) / 8
        one = fed._replace(inputs=fed.inputs[part], targets=fed.targets[part], piece=piece, pieces=2, share=share)
        stage.play(stage.weights, one, track=True)
    z = stage.blocks[1](fed.inputs.flatten(1)).detach()
    means, variances = (0.75 * of(z[:6], 0) + 0.25 * of(z[6:], 0) for of in (torch.mean, torch.var))
    torch.testing.assert_close(stage.running, torch.cat([0.1 * means, 0.9 + 0.1 * variances]))


def test_micro_batches_drop_units_of_their_own():
    stage = partition(dropout=0.5).stages[0]
    fed = features(number=2)
    pieces = [stage.play(stage.weights, fed._replace(piece=i, pieces=2, share=0.5), track=False) for i in (0, 1, 1)]
    assert torch.equal(pieces[0], stage.play(stage.weights, fed, track=False))
    assert not torch.equal(pieces[1], pieces[0])
    assert torch.equal(pieces[1], pieces[2])


def test_last_module_counts_loss_and_errors():
    cut = partition()
    both_tapes(cut)
    inputs, targets = DIGITS.train.batch(torch.arange(8))
    outputs = Blocks()(inputs)
    loss = nn.functional.cross_entropy(outputs, targets, reduction="sum")
    errors = (outputs.argmax(1) != targets).sum()
    assert cut.oracle.totals.tolist() == pytest.approx([float(loss.detach()), float(errors), 8.0], rel=1e-5)


class Held:
    """A method that holds some tensors and tapes."""

    def __init__(self, tensors: list[Tensor], tapes: list[Any]) -> None:
        self.in_memory = tensors, tapes

    def __getattr__(self, name: str) -> Any:
        return lambda: self.in_memory


def test_memory_counts_each_storage_once():
    cut = partition()
    stage = cut.stages[0]
    kept = torch.zeros(100)
    stage.method = None
    tape = stage.record(stage.weights, features(), track=False)
    assert stage.peak == 0, "nothing is counted without a method"
    stage.method = Held([kept, kept[:50]], [tape, tape])  # type: ignore[assignment]
    stage.play(stage.weights, features(), track=False)
    assert stage.peak == 400 + sum(tape.storages.values())
    stage.method = Held([], [])  # type: ignore[assignment]
    stage.play(stage.weights, features(), track=False)
    assert stage.peak == 400 + sum(tape.storages.values()), "it is the largest so far"


def test_weights_are_no_saved_tensors():
    cut = partition()
    stage = cut.stages[1]
    inputs = torch.randn(8, 6)
    tape = stage.record(stage.weights, features()._replace(inputs=inputs), track=False)
    assert stage.weights.untyped_storage().data_ptr() not in tape.storages
    assert inputs.untyped_storage().nbytes() in tape.storages.values()


def mask(outputs: Tensor) -> Tensor:
    return outputs == 0


def test_dropout_is_seeded_by_batch_and_module():
    """The first module draws what the whole network would, each other one from a stream of its own."""
    cut = partition(dropout=0.5)
    first, last = cut.stages
    fed = features(number=4)
    torch.manual_seed(99)
    played = first.play(first.weights, fed, track=False)
    torch.manual_seed(derive(3, "dropout", 4))
    whole = Blocks(dropout=0.5)
    torch.manual_seed(derive(3, "dropout", 4))
    expected = fed.inputs
    for _, block in list(whole.blocks())[:4]:
        expected = block.train()(expected)
    torch.testing.assert_close(played, expected)
    # The last module, by hand: its stream is named by its rank.
    second, drop, third = last.blocks
    torch.manual_seed(derive(3, "dropout", 4, 1))
    expected = third(drop.train()(second(played)))
    torch.testing.assert_close(last.play(last.weights, fed._replace(inputs=played), track=False), expected.detach())


def test_functions_drop_as_seeded():
    """Attention in the first module and a function in the second drop alike in a play, a record and anew."""
    torch.manual_seed(0)
    cut = Partition(
        NetworkOracle(Replica(Drawing(shape=(1, 8, 8), classes=10)), DIGITS.train, seed=3), 2, None, (64,), 10
    )
    for stage, inputs in zip(cut.stages, (torch.randn(8, 64), torch.randn(8, 12)), strict=True):
        fed = Features(4, inputs, torch.arange(8))
        torch.manual_seed(99)
        once = stage.play(stage.weights, fed, track=False)
        assert torch.equal(stage.record(stage.weights, fed, track=False).outputs, once)
        assert not torch.equal(stage.play(stage.weights, fed._replace(number=5), track=False), once)


def test_replays_drop_the_same_units():
    cut = partition(dropout=0.5)
    stage = cut.stages[0]
    once = stage.play(stage.weights, features(number=2), track=False)
    assert torch.equal(stage.record(stage.weights, features(number=2), track=False).outputs, once)
    assert not torch.equal(mask(stage.play(stage.weights, features(number=3), track=False)), mask(once))
