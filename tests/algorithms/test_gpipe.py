"""GPipe against back-propagation, and against SGD on the same micro-batches."""

from pathlib import Path

import pytest
import torch

from tests.cutting import ByHand
from tests.trial import train

DEEP = ("model=resnet8", "dataset.limit_train=32", "dataset.limit_test=10", "run.batch_size=8", "run.epochs=2")
FLAT = ("model=mlp", "model.widths=[12,10]", "dataset.limit_train=44", *DEEP[2:])
"""With a batch of four at each epoch's end."""


@pytest.mark.parametrize(("workers", "order"), [(1, "gpipe"), (3, "1f1b")])
def test_modules_are_sgd_on_the_same_micro_batches(workers: int, order: str, tmp_path: Path):
    """To the bit, with momentum and batch norm: four micro-batches of two."""
    common = (*DEEP, "algorithm.momentum=0.9", "schedule.lr=0.05")
    whole = train("algorithm=sgd", "run.micro_batch=2", *common, folder=tmp_path)
    given = (f"cluster.workers={workers}", f"algorithm.order={order}", "algorithm.micro_batches=4")
    pieces = train("algorithm=gpipe", *given, *common, folder=tmp_path)
    assert pieces.sha256 == whole.sha256
    assert torch.equal(pieces.executor.running_statistics(), whole.executor.running_statistics())
    scores = ("train_loss", "train_error", "test_loss", "test_error")
    for ours, theirs in zip(pieces.notes.rows, whole.notes.rows, strict=True):
        assert [ours[name] for name in scores] == [theirs[name] for name in scores]


def test_one_micro_batch_is_back_propagation(tmp_path: Path):
    common = (*FLAT, "cluster.workers=3", "algorithm.momentum=0.9", "algorithm.nesterov=true")
    found = train("algorithm=gpipe", "algorithm.micro_batches=1", *common, folder=tmp_path)
    assert found.sha256 == train("algorithm=bp", *common, folder=tmp_path).sha256


@pytest.mark.parametrize("order", ["gpipe", "1f1b"])
def test_gradient_is_that_of_the_whole_batch(order: str, tmp_path: Path):
    """By hand; five micro-batches, of which the last one of an epoch's last four samples is empty."""
    hand = ByHand("algorithm=gpipe", "algorithm.micro_batches=5", f"algorithm.order={order}", folder=tmp_path)
    for t in range(hand.total):
        gradients = hand.gradients(hand.weights, t)
        for k in range(3):
            hand.sgd_step(k, gradients[k])
    hand.check()


def test_order_changes_no_bit(tmp_path: Path):
    common = ("algorithm=gpipe", *FLAT, "cluster.workers=3", "algorithm.micro_batches=3")
    orders = [train(*common, f"algorithm.order={order}", folder=tmp_path) for order in ("gpipe", "1f1b")]
    assert orders[0].sha256 == orders[1].sha256
    assert orders[0].sha256 != train(*common, "algorithm.micro_batches=2", folder=tmp_path).sha256
