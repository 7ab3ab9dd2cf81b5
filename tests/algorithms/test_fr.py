"""Features replay against a script of algorithm 11 in plain autograd."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.cutting import ByHand
from tests.trial import train


@pytest.mark.parametrize("start", ["zero", "skip"])
def test_it_is_algorithm_11(start: str, tmp_path: Path):
    hand = ByHand("algorithm=fr", f"algorithm.start={start}", folder=tmp_path)
    inputs: list[dict[int, Any]] = [{}, {}, {}]
    delta: list[Any] = [None, None, None]  # what module k + 1 sent in the iteration before
    for t in range(hand.total):
        features, targets = hand.batch(t)
        for k in range(3):
            inputs[k][t] = features
            features = hand.layer(k, features, hand.weights[k])  # line 6
        sent: list[Any] = [None, None, None]
        weights = [list(layer) for layer in hand.weights]
        for k in range(3):
            s = t + k - 2
            if s < 0 and start == "skip":
                continue
            size = len(inputs[k][t])
            stored = inputs[k][s] if s >= 0 else torch.zeros_like(inputs[k][t])
            leaf = stored.clone().requires_grad_()
            own = [p.clone().requires_grad_() for p in weights[k]]
            replayed = hand.layer(k, leaf, own)  # line 11
            if k == 2:
                end = nn.functional.cross_entropy(replayed, targets)
                *g, below = torch.autograd.grad(end, [*own, leaf])
            else:
                arrived = delta[k] if delta[k] is not None else torch.zeros(size, replayed.shape[1])
                *g, below = torch.autograd.grad(replayed, [*own, leaf], arrived)
            hand.sgd_step(k, g)  # line 13
            if k:
                sent[k - 1] = below  # line 14
        delta = sent
    hand.check()


def test_replay_counts_once_or_twice_in_statistics(tmp_path: Path):
    setting = ("algorithm=fr", "model=resnet8", "dataset.limit_train=40", "run.batch_size=8", "run.epochs=1")
    once, twice = (train(*setting, f"algorithm.statistics={n}", folder=tmp_path) for n in ("once", "twice"))
    assert once.sha256 == twice.sha256, "training does not look at them"
    first, second = (run.executor.partition.stages[0].running for run in (once, twice))  # type: ignore[attr-defined]
    assert not torch.equal(first, second)
    last = [run.executor.partition.stages[1].running for run in (once, twice)]  # type: ignore[attr-defined]
    assert torch.equal(*last)
