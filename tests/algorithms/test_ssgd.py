from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.base import Batch, Step
from algorithms.ssgd import SSGD
from tests.trial import equal, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=0.05")


def answering(g: Tensor) -> Any:
    """An oracle whose gradient is the same everywhere."""
    return SimpleNamespace(gradient=lambda w, batch: g.clone())


def test_three_workers_step_is_the_papers():
    random = np.random.default_rng(0)
    w, gs = random.standard_normal(7), random.standard_normal((3, 7))
    batch = Batch(0, 0, torch.arange(2))
    workers, messages = [], []
    for rank, g in enumerate(gs):
        method = SSGD(weight_decay=0.1)
        method.start(torch.from_numpy(w.copy()), rank, 3)
        messages.append(method.local(answering(torch.from_numpy(g)), batch, Step(lr=0.5))["g"])
        workers.append(method)
    combined = {"g": torch.stack(messages).mean(0)}
    for method in workers:
        method.apply(combined, Step(lr=0.5))
        np.testing.assert_allclose(method.solution(), w - 0.5 * (gs.mean(0) + 0.1 * w), rtol=1e-13)


def test_momentum_is_on_the_averaged_gradient():
    random = np.random.default_rng(1)
    w, v = random.standard_normal(7), np.zeros(7)
    method = SSGD(momentum=0.9, nesterov=True)
    method.start(torch.from_numpy(w.copy()), 0, 2)
    for _ in range(3):
        g = random.standard_normal(7)
        method.apply({"g": torch.from_numpy(g)}, Step(lr=0.1))
        v = 0.9 * v + g
        w = w - 0.1 * (g + 0.9 * v)
    np.testing.assert_allclose(method.solution(), w, rtol=1e-13)
    assert set(method.state()) == {"w", "v"}


def test_a_smaller_share_counts_by_its_samples():
    method = SSGD()
    method.start(torch.zeros(3), 0, 2)
    message = method.local(answering(torch.ones(3)), Batch(0, 0, torch.arange(1)), Step(lr=1.0, relative_size=0.4))
    assert torch.equal(message["g"], torch.full((3,), 0.4))


def test_mean_gradient_is_that_of_large_batch(tmp_path: Path):
    """Three workers with batches of 8 take the steps of one with 24, the short last step of an epoch too."""
    apart = train("algorithm=ssgd", "model=mlp", *RUN, "cluster.workers=3", "run.batch_size=8", folder=tmp_path)
    together = train("algorithm=sgd", "model=mlp", *RUN, "run.batch_size=24", folder=tmp_path)
    assert apart.control.updates == together.control.updates == 6
    assert not equal(apart.weights, together.weights)
    for name, value in together.weights.items():
        torch.testing.assert_close(apart.weights[name], value, rtol=1e-4, atol=1e-6)


def test_one_worker_is_sgd_to_the_bit(tmp_path: Path):
    overrides = ("model=resnet8", *RUN, "algorithm.momentum=0.9")
    one = train("algorithm=ssgd", "cluster.workers=1", *overrides, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *overrides, folder=tmp_path).weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"),
        ({"momentum": -0.1}, r"algorithm\.momentum=-0\.1"),
        ({"weight_decay": -1.0}, r"algorithm\.weight_decay=-1\.0: out of range; allowed: weight_decay >= 0"),
        ({"nesterov": True}, r"algorithm\.nesterov=true: needs momentum; allowed: algorithm\.momentum > 0"),
    ],
)
def test_wrong_values_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SSGD(**options)
