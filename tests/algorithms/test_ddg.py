"""DDG against gradients computed one by one at the weights that the thesis names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.cutting import ByHand
from tests.trial import train


@pytest.mark.parametrize("start", ["skip", "zero"])
def test_module_takes_exact_delayed_gradient(start: str, tmp_path: Path):
    hand = ByHand("algorithm=ddg", f"algorithm.start={start}", folder=tmp_path)
    past = []
    for t in range(hand.total):
        past.append([list(layer) for layer in hand.weights])
        for k in range(3):
            s = t - 2 + k
            if s >= 0:
                hand.sgd_step(k, hand.gradients(past[s], s)[k])  # eq. 5.6 to 5.9
            elif start == "zero":
                hand.sgd_step(k, [torch.zeros_like(p) for p in hand.weights[k]])  # eq. 5.8
    hand.check()


def test_current_weights_use_old_graph(tmp_path: Path):
    """By hand: δ goes down through the weights of t, activations are those of iteration s."""
    hand = ByHand("algorithm=ddg", "algorithm.weights=current", folder=tmp_path)
    kept: list[list] = [[], [], []]
    sent: list[Any] = [None, None, None]
    for t in range(hand.total):
        outputs, targets = hand.batch(t)
        for k in range(3):
            inputs, outputs = outputs, hand.layer(k, outputs, hand.weights[k])
            kept[k].append((inputs, outputs))
        arriving = sent
        now: list[Any] = [None] * 3
        for k in range(3):
            if t < 2 - k:
                continue
            inputs, outputs = kept[k].pop(0)
            if k == 2:
                delta = nn.functional.softmax(outputs, 1) - nn.functional.one_hot(targets, 10)
                delta = delta / len(targets)
            else:
                delta = arriving[k + 1] * (1 - outputs**2)
            now[k] = delta @ hand.weights[k][0]
            hand.sgd_step(k, [delta.T @ inputs, delta.sum(0)])
        sent = now
    hand.check()


def test_the_two_kinds_of_weights_differ(tmp_path: Path):
    setting = ("algorithm=ddg", "model=mlp", "model.widths=[8,8]", "dataset.limit_train=60", "run.batch_size=8")
    runs = [
        train(*setting, "cluster.workers=3", f"algorithm.weights={which}", folder=tmp_path)
        for which in ("stashed", "current")
    ]
    assert runs[0].sha256 != runs[1].sha256
