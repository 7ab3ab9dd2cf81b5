from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.diloco import DiLoCo
from tests.trial import Trial, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "run.batch_size=8", "schedule.lr=0.05")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("inner", [1, 2])
def test_steps_are_those_of_the_paper(inner: int, optimizer: str, tmp_path: Path):
    """Three workers, from the gradients that they were given, in NumPy."""
    options = ("algorithm=diloco", f"algorithm.inner={inner}", "model=linear", *RUN, "cluster.workers=3")
    trial = Trial(*options, f"algorithm.optimizer={optimizer}", "algorithm.weight_decay=0.1", folder=tmp_path)
    oracle = trial.components.oracle
    asked = trial.watched_gradients()
    theta = oracle.replica.weights.numpy().astype(np.float64)
    trial.run()
    x, m, u, outer = np.stack([theta] * 3), *np.zeros((2, 3, len(theta))), np.zeros(len(theta))
    for k in range(6):
        samples = sum(asked[3 * k + rank][2] for rank in range(3))
        for rank in range(3):
            w, g, size = asked[3 * k + rank]
            np.testing.assert_allclose(w, x[rank], rtol=1e-4, atol=1e-6)
            g = g * (3 * size / samples)
            if optimizer == "sgd":
                x[rank] -= 0.05 * (g + 0.1 * x[rank])
                continue
            m[rank] = 0.9 * m[rank] + 0.1 * g
            u[rank] = 0.999 * u[rank] + 0.001 * g * g
            root = np.sqrt(u[rank] / (1 - 0.999 ** (k + 1))) + 1e-8
            x[rank] = (1 - 0.05 * 0.1) * x[rank] - 0.05 * m[rank] / (1 - 0.9 ** (k + 1)) / root
        if (k + 1) % inner == 0:
            delta = theta - x.mean(0)
            outer = 0.9 * outer + delta
            theta = theta - 0.7 * (delta + 0.9 * outer)
            x[:] = theta
    np.testing.assert_allclose(trial.executor.weights(), theta, rtol=1e-4, atol=1e-6)
    assert len(asked) == 18


def test_plain_outer_step_is_local_sgd(tmp_path: Path):
    """To rounding: the mean is reached by way of a difference."""
    options = ("model=mlp", *RUN, "cluster.workers=3", "algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    plain = ("algorithm.inner=2", "algorithm.outer_lr=1", "algorithm.outer_momentum=0", "algorithm.optimizer=sgd")
    outer = train("algorithm=diloco", *options, *plain, folder=tmp_path)
    local = train("algorithm=local_sgd", "algorithm.tau=2", *options, folder=tmp_path)
    for name, value in local.weights.items():
        torch.testing.assert_close(outer.weights[name], value, rtol=1e-5, atol=1e-6)
    other = train("algorithm=diloco", *options, *plain[:1], *plain[2:], folder=tmp_path)
    assert any((other.weights[name] - value).abs().max() > 1e-4 for name, value in local.weights.items())


def test_one_worker_alone_is_nesterov_sgd(tmp_path: Path):
    size = ("model=mlp", *RUN[:-1], "algorithm.weight_decay=0")
    alone = ("cluster.workers=1", "algorithm.inner=1", "algorithm.optimizer=sgd", "schedule.lr=0.05")
    one = train("algorithm=diloco", *alone, *size, folder=tmp_path)
    nesterov = ("algorithm.momentum=0.9", "algorithm.nesterov=true", f"schedule.lr={0.05 * 0.7}")
    reference = train("algorithm=sgd", *nesterov, *size, folder=tmp_path)
    for name, value in reference.weights.items():
        torch.testing.assert_close(one.weights[name], value, rtol=1e-4, atol=1e-5)


def test_outer_weights_are_evaluated(tmp_path: Path):
    """Before the first outer step they are those at the start, though the workers have moved."""
    trial = Trial("algorithm=diloco", "algorithm.inner=99", "model=mlp", *RUN, "cluster.workers=2", folder=tmp_path)
    start = trial.components.oracle.replica.weights.clone()
    trial.run()
    methods: Any = trial.executor.methods  # type: ignore[attr-defined]
    assert torch.equal(trial.executor.weights(), start)
    assert not any(torch.equal(method.w, start) for method in methods)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": 0}, r"algorithm\.inner=0: out of range; allowed: inner >= 1"),
        ({"inner": 1.5}, r"algorithm\.inner=1\.5: is not a whole number"),
        ({"outer_lr": -1.0}, r"algorithm\.outer_lr=-1\.0: out of range"),
        ({"outer_momentum": 1.0}, r"algorithm\.outer_momentum=1\.0: out of range; allowed: 0 <= outer_momentum < 1"),
        ({"momentum": 0.9}, r"algorithm\.momentum=0\.9: adamw does not use it; allowed: 0, or optimizer=sgd"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DiLoCo(**options)


def test_what_is_compared_follows_the_configuration():
    assert DiLoCo(inner=8).compared() == {"mini-batch SGD": (1, 0), "DiLoCo": (8, 0)}
