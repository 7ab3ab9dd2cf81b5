"""PipeDream against gradients at the versions that the paper names, DDG, and SGD with a delay."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.pipedream import PipeDream
from tests.cutting import DECAY, LR, ByHand
from tests.trial import Trial, train

SHORT = ("dataset.limit_train=44", "dataset.limit_test=10", "run.batch_size=8", "run.epochs=2")
FLAT = ("model=mlp", "model.widths=[12,10,8]", *SHORT)


@pytest.mark.parametrize("weights", ["stashed", "vertical"])
def test_each_module_plays_a_batch_at_its_version(weights: str, tmp_path: Path):
    """Section 3.3: of three modules, by number of updates, at t − 2, t − 1 and t; with vertical sync all at t − 2."""
    hand = ByHand("algorithm=pipedream", f"algorithm.weights={weights}", folder=tmp_path)
    versions = [[list(layer)] for layer in hand.weights]
    for iteration in range(hand.total):
        for k in range(3):
            t = iteration - 2 + k
            if t < 0:
                continue
            numbers = [t - 2 + j if weights == "stashed" else t - 2 for j in range(3)]
            at = [versions[j][max(0, number)] for j, number in enumerate(numbers)]
            hand.sgd_step(k, hand.gradients(at, t)[k])
            versions[k].append(list(hand.weights[k]))
    hand.check()


@pytest.mark.parametrize("weights", ["stashed", "current"])
@pytest.mark.parametrize("network", [FLAT, pytest.param(("model=resnet8", *SHORT), marks=pytest.mark.slow)])
def test_weights_are_those_of_ddg(network: tuple[str, ...], weights: str, tmp_path: Path):
    common = (
        *network,
        "cluster.workers=4",
        "algorithm.momentum=0.9",
        "schedule.lr=0.05",
        f"algorithm.weights={weights}",
    )
    found = train("algorithm=pipedream", *common, folder=tmp_path)
    expected = train("algorithm=ddg", *common, folder=tmp_path)
    assert found.sha256 == expected.sha256
    assert torch.equal(found.executor.running_statistics(), expected.executor.running_statistics())


def test_vertical_sync_is_sgd_with_a_delay(tmp_path: Path):
    """K − 1 updates late, in the whole network, to the bit; module k's last K − k updates are still to come."""
    given = ("algorithm=pipedream", "algorithm.weights=vertical", *FLAT, "cluster.workers=3", "schedule.lr=0.05")
    trial = Trial(*given, "algorithm.weight_decay=0", folder=tmp_path)
    oracle, batches = trial.components.oracle, trial.components.batches
    past = [oracle.replica.weights.clone()]
    for t in range(len(batches)):
        g = oracle.gradient(past[max(0, t - 2)], batches.batch(t))
        past.append(past[-1].clone().add_(g, alpha=-0.05))
    oracle.replica.weights.copy_(past[0])
    oracle.take_totals()
    run: Any = trial.run()
    weights, pieces = run.executor.weights(), run.executor.partition.pieces
    for k, (low, high, *_) in enumerate(pieces):
        assert torch.equal(weights[low:high], past[len(past) - 1 - (2 - k)][low:high])


def test_weights_are_predicted_along_the_momentum(tmp_path: Path):
    """SpecTrain by hand: activations are at w − s γ v, s = 2, 1 and 0, and δ goes down through the weights of t."""
    hand = ByHand("algorithm=spectrain", folder=tmp_path)
    v: list[list[Tensor]] = [[torch.zeros_like(p) for p in layer] for layer in hand.weights]
    kept: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    sent: list[Any] = [None, None, None]
    for t in range(hand.total):
        outputs, targets = hand.batch(t)
        for k in range(3):
            ahead = [p - (2 - k) * LR * m for p, m in zip(hand.weights[k], v[k], strict=True)]
            inputs, outputs = outputs, hand.layer(k, outputs, ahead)
            kept[k].append((inputs, outputs))
        now: list[Any] = [None] * 3
        for k in range(3):
            if t < 2 - k:
                continue
            inputs, outputs = kept[k].pop(0)
            if k == 2:
                delta = nn.functional.softmax(outputs, 1) - nn.functional.one_hot(targets, 10)
                delta = delta / len(targets)
            else:
                delta = sent[k + 1] * (1 - outputs**2)
            now[k] = delta @ hand.weights[k][0]
            for i, g in enumerate([delta.T @ inputs, delta.sum(0)]):
                v[k][i] = 0.9 * v[k][i] + g + DECAY * hand.weights[k][i]
                hand.weights[k][i] = hand.weights[k][i] - LR * v[k][i]
        sent = now
    hand.check()


def test_prediction_survives_checkpoint(tmp_path: Path):
    """Also the rate, along which the next weights are predicted, and one buffer for all graphs."""
    given = ("algorithm=spectrain", *FLAT, "cluster.workers=4", "run.checkpoint_every=100")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = train(*given, folder=tmp_path / "a")
    state = Trial(*given, folder=tmp_path / "b", stop_after=5).stopped()
    continued = Trial(*given, folder=tmp_path / "b").resume(state).run()
    assert continued.sha256 == expected.sha256
    assert continued.executor.columns() == expected.executor.columns()


def test_prediction_needs_a_momentum():
    with pytest.raises(ValueError, match=r"^algorithm\.weights=predicted: .*; allowed: stashed, vertical, current$"):
        PipeDream(weights="predicted")


def test_versions_are_as_many_as_the_paper_says(tmp_path: Path):
    """K − k + 1 where a batch is played, K with vertical sync; the last module needs no copy of its own weights."""
    for weights, expected in (("stashed", [4, 3, 2, 0]), ("vertical", [4, 4, 4, 4])):
        given = ("algorithm=pipedream", f"algorithm.weights={weights}", *FLAT, "cluster.workers=4")
        trial = Trial(*given, folder=tmp_path)
        executor: Any = trial.executor
        most = [0] * 4

        def count(rank: int, method: Any, most: list[int] = most) -> None:
            forward = method.forward

            def counted(stage: Any, features: Any) -> Any:
                outputs = forward(stage, features)
                copies = {w.data_ptr() for w in method.versions if w is not method.w}
                most[rank] = max(most[rank], len(copies))
                return outputs

            method.forward = counted

        for rank, method in enumerate(executor.methods):
            count(rank, method)
        trial.run()
        assert most == expected
