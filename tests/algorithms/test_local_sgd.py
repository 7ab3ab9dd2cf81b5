from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.local_sgd import LocalSGD
from tests.trial import Trial, equal, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "run.batch_size=8", "schedule.lr=0.05")


@pytest.mark.parametrize("tau", [1, 3])
def test_workers_step_alone_then_average(tau: int, tmp_path: Path):
    """70 samples, three workers with batches of 8: the last step of an epoch has shares of 8, 7 and 7 samples."""
    options = ("algorithm=local_sgd", f"algorithm.tau={tau}", "model=linear", *RUN, "cluster.workers=3")
    trial = Trial(*options, "algorithm.momentum=0.5", "algorithm.weight_decay=0.1", folder=tmp_path)
    oracle = trial.components.oracle
    asked = trial.watched_gradients()
    start = oracle.replica.weights.numpy().copy()
    trial.run()
    x, v = np.stack([start] * 3), np.zeros((3, len(start)))
    for k in range(6):
        samples = sum(asked[3 * k + m][2] for m in range(3))
        for m in range(3):
            w, g, size = asked[3 * k + m]
            np.testing.assert_allclose(w, x[m], rtol=1e-5, atol=1e-7)
            v[m] = 0.5 * v[m] + (g + 0.1 * x[m]) * (3 * size / samples)
            x[m] -= 0.05 * v[m]
        if (k + 1) % tau == 0:
            x[:] = x.mean(0)
    np.testing.assert_allclose(trial.executor.weights(), x.mean(0), rtol=1e-5, atol=1e-7)


def test_averaging_every_step_is_ssgd(tmp_path: Path):
    """Also in the last step of an epoch, whose shares differ, and with weight decay."""
    options = ("model=mlp", *RUN, "cluster.workers=3", "algorithm.weight_decay=0.01")
    local = train("algorithm=local_sgd", "algorithm.tau=1", *options, folder=tmp_path)
    synchronous = train("algorithm=ssgd", *options, folder=tmp_path)
    rare = train("algorithm=local_sgd", "algorithm.tau=2", *options, folder=tmp_path)
    for name, value in synchronous.weights.items():
        torch.testing.assert_close(local.weights[name], value, rtol=1e-5, atol=1e-7)
    assert any((rare.weights[name] - value).abs().max() > 1e-4 for name, value in synchronous.weights.items())


@pytest.mark.parametrize("algorithm", ["local_sgd", "dasgd"])
def test_one_worker_is_sgd(algorithm: str, tmp_path: Path):
    """To the bit; DaSGD still merges a worker's own old weights, which ξ=1 leaves out."""
    options = ("model=resnet8", *RUN, "algorithm.momentum=0.9")
    one = train(
        f"algorithm={algorithm}",
        "cluster.workers=1",
        *(("algorithm.xi=1",) if algorithm == "dasgd" else ()),
        *options,
        folder=tmp_path,
    )
    assert equal(one.weights, train("algorithm=sgd", *options, folder=tmp_path).weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, r"algorithm\.tau=0: out of range; allowed: tau >= 1"),
        ({"tau": 2.5}, r"algorithm\.tau=2\.5: is not a whole number"),
        ({"tau": True}, r"algorithm\.tau=True: is not a whole number"),
        ({"momentum": -0.1}, r"algorithm\.momentum=-0\.1"),
        ({"weight_decay": -1.0}, r"algorithm\.weight_decay=-1\.0"),
        ({"nesterov": True}, r"algorithm\.nesterov=true: needs momentum"),
    ],
)
def test_wrong_values_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LocalSGD(**options)


def test_what_is_compared_follows_the_configuration():
    assert LocalSGD(tau=8).compared() == {"mini-batch SGD": (1, 0), "Local SGD": (8, 0)}
