"""PipeDream-2BW against SGD whose gradients are one update late."""

from pathlib import Path
from typing import Any

import pytest
import torch

from runner.config.errors import InputError
from runner.train import build
from tests.cutting import ByHand
from tests.trial import Trial, compose

SHORT = ("dataset.limit_train=44", "dataset.limit_test=10", "run.batch_size=8", "run.epochs=2", "schedule.lr=0.05")


@pytest.mark.parametrize(("workers", "micro_batches"), [(1, 1), (2, 1), (3, 2), (1, 4), (3, 4)])
def test_gradients_are_one_update_late(workers: int, micro_batches: int, tmp_path: Path):
    """To the bit, on the network as a whole: w(t + 1) = w(t) - lr v(t), v(t) = 0.9 v(t - 1) + g(w(t - 1)).

    Of all modules but the last, the last batch's update is still to come.
    """
    given = ("algorithm=pipedream_2bw", f"algorithm.micro_batches={micro_batches}", f"cluster.workers={workers}")
    flat = ("model=mlp", "model.widths=[12,10,8]", *SHORT, "algorithm.momentum=0.9", "algorithm.weight_decay=0")
    trial = Trial(*given, *flat, folder=tmp_path)
    oracle, batches = trial.components.oracle, trial.components.batches
    past, v = [oracle.replica.weights.clone()], torch.zeros_like(oracle.replica.weights)
    for t in range(len(batches)):
        batch, g = batches.batch(t), torch.zeros_like(v)
        for ids in batch.ids.tensor_split(micro_batches):
            inputs, targets = oracle.split.batch(ids, seed=0, epoch=batch.epoch)
            oracle.replica.weights.copy_(past[max(0, t - 1)])
            oracle.replica.gradient.zero_()
            oracle.backward(inputs, targets, len(ids) / len(batch.ids))
            g += oracle.replica.gradient
        v.mul_(0.9).add_(g)
        past.append(past[-1].clone().add_(v, alpha=-0.05))
    oracle.replica.weights.copy_(past[0])
    run: Any = trial.run()
    weights, pieces = run.executor.weights(), run.executor.partition.pieces
    for k, (low, high, *_) in enumerate(pieces):
        assert torch.equal(weights[low:high], past[-1 if k == workers - 1 else -2][low:high])


def test_gradients_are_of_the_whole_batch(tmp_path: Path):
    """By hand; five micro-batches, of which the last one of an epoch's last four samples is empty."""
    hand = ByHand("algorithm=pipedream_2bw", "algorithm.micro_batches=5", folder=tmp_path)
    past: list[Any] = []
    for t in range(hand.total):
        past.append([list(layer) for layer in hand.weights])
        gradients = hand.gradients(past[max(0, t - 1)], t)
        # Of the last batch only the last module's update is made.
        for k in range(3 if t < hand.total - 1 else 1):
            hand.sgd_step(2 - k, gradients[2 - k])
    hand.check()


def test_gradients_would_be_too_late():
    given = ("algorithm=pipedream_2bw", "algorithm.micro_batches=1", "model=mlp", "model.widths=[8,8]")
    wrong = r"^algorithm\.micro_batches=1: with cluster\.workers=3 some gradients .*; allowed: 2 or more$"
    with pytest.raises(InputError, match=wrong):
        build.build_run(compose(*given, "cluster.workers=3"))
