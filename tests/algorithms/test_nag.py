from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.base import Batch, Layer, Step
from algorithms.nag import NAG
from tests.trial import Trial, equal, reference_sgd, train

LAYERS = (Layer("first", 0, 3), Layer("last", 3, 7))
RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=0.05")


def started(w: Tensor, **options: Any) -> NAG:
    method = NAG(**options)
    method.prepare(LAYERS)
    method.start(w, 0, 1)
    return method


def test_steps_are_equation_4_6():
    random = np.random.default_rng(0)
    w = random.standard_normal(7)
    v = w.copy()
    method = started(torch.from_numpy(w.copy()), momentum=0.8, weight_decay=0.1, layer_scale={"last": 3.0})
    for lr in (0.5, 0.5, 0.1, 0.02):
        g = random.standard_normal(7)
        method.apply({"g": torch.from_numpy(g.copy())}, Step(lr=lr))
        gamma = lr * np.array([1, 1, 1, 3, 3, 3, 3])
        after = w - gamma * (g + 0.1 * w)
        w = after + 0.8 * (after - v)
        v = after
        np.testing.assert_allclose(method.solution(), w, rtol=1e-12)
        np.testing.assert_allclose(method.state()["v"], v, rtol=1e-12)


def test_without_momentum_it_is_gradient_descent():
    method = started(torch.ones(7), momentum=0.0)
    for _ in range(3):
        method.apply({"g": torch.full((7,), 2.0)}, Step(lr=0.25))
    assert torch.equal(method.solution(), torch.full((7,), -0.5))


def test_a_layer_with_scale_zero_is_frozen():
    method = started(torch.ones(7), layer_scale={"first": 0})
    method.apply({"g": torch.ones(7)}, Step(lr=0.1))
    assert torch.equal(method.solution()[:3], torch.ones(3))
    assert (method.solution()[3:] < 1).all()


def test_constant_rate_is_torchs_nesterov(tmp_path: Path):
    overrides = ("algorithm=nag", "model=resnet8", *RUN, "algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    ours = train(*overrides, folder=tmp_path)
    network, loop = reference_sgd(ours.components.cfg, momentum=0.9, nesterov=True, weight_decay=0.01)
    loop(2, lambda update: 0.05)
    for name, value in network.named_parameters():
        torch.testing.assert_close(ours.weights[name], value.detach(), rtol=2e-3, atol=2e-5, msg=name)


def test_workers_step_like_one_large_batch(tmp_path: Path):
    overrides = ("algorithm=nag", "model=mlp", *RUN)
    apart = train(*overrides, "cluster.workers=3", "run.batch_size=8", folder=tmp_path)
    together = train(*overrides, "run.batch_size=24", folder=tmp_path)
    assert together.components.workers == 1
    assert apart.control.updates == together.control.updates == 6
    for name, value in together.weights.items():
        torch.testing.assert_close(apart.weights[name], value, rtol=1e-4, atol=1e-6)


def test_resumed_run_gives_the_same_bits(tmp_path: Path):
    overrides = ("algorithm=nag", "model=resnet8", *RUN)
    whole = train(*overrides, folder=tmp_path)
    state = Trial(*overrides, folder=tmp_path, stop_after=4).stopped()
    again = Trial(*overrides, folder=tmp_path).resume(state).run()
    assert again.sha256 == whole.sha256
    assert equal(again.state, whole.state)


def test_a_smaller_share_counts_by_its_samples():
    method = started(torch.zeros(7))
    oracle: Any = SimpleNamespace(gradient=lambda w, batch: torch.ones(7))
    message = method.local(oracle, Batch(0, 0, torch.arange(1)), Step(lr=1.0, relative_size=0.5))
    assert torch.equal(message["g"], torch.full((7,), 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"),
        ({"weight_decay": -1.0}, r"algorithm\.weight_decay=-1\.0: out of range"),
        ({"layer_scale": {"last": -1}}, r"algorithm\.layer_scale\.last=-1: out of range"),
        ({"layer_scale": {"last": "x"}}, r"algorithm\.layer_scale\.last=x: not a number; allowed: numbers from 0"),
        ({"layer_scale": 3}, r"algorithm\.layer_scale=3: does not name layers"),
        ({"layer_scale": {"lost": 2}}, r"algorithm\.layer_scale\.lost=2\.0: no such layer; allowed: first, last"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        NAG(**options).prepare(LAYERS)
