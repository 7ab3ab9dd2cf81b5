"""PipeDream against gradients at the versions that the paper names, DDG, and SGD with a delay."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cutting import ByHand
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
