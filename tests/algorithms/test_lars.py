from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.base import Layer, Step
from algorithms.lars import LARS
from tests.trial import Trial, equal, train

LAYERS = (Layer("a", 0, 3), Layer("b", 3, 7), Layer("c", 7, 9))
RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=2.0")


def started(w: np.ndarray, **options: Any) -> LARS:
    method = LARS(**options)
    method.prepare(LAYERS)
    method.start(torch.from_numpy(w.copy()), 0, 1)
    return method


def test_steps_are_equation_4_3():
    random = np.random.default_rng(0)
    w = random.standard_normal(9) * [1, 1, 1, 9, 9, 9, 9, 0.1, 0.1]
    v = w.copy()
    method = started(w, eta=0.02, momentum=0.7)
    for scale in (6.4, 6.4, 3.2):
        g = random.standard_normal(9)
        method.apply({"g": torch.from_numpy(g.copy())}, Step(lr=scale))
        after = w.copy()
        for _, low, high in LAYERS:
            gamma = scale * 0.02 * np.sqrt((w[low:high] ** 2).sum()) / np.sqrt((g[low:high] ** 2).sum())
            after[low:high] -= gamma * g[low:high]
        w, v = after + 0.7 * (after - v), after
        np.testing.assert_allclose(method.solution(), w, rtol=1e-12)


def test_step_ignores_gradient_length():
    w, g = np.arange(1.0, 10.0), np.arange(9.0, 0.0, -1.0)
    short, long = started(w), started(w)
    short.apply({"g": torch.from_numpy(1e-3 * g)}, Step(lr=1.0))
    long.apply({"g": torch.from_numpy(1e3 * g)}, Step(lr=1.0))
    np.testing.assert_allclose(short.solution(), long.solution(), rtol=1e-12)


def test_weight_decay_is_you_et_als():
    random = np.random.default_rng(1)
    w, g = random.standard_normal((2, 9))
    method = started(w, eta=0.1, momentum=0.0, weight_decay=0.5)
    method.apply({"g": torch.from_numpy(g.copy())}, Step(lr=2.0))
    for _, low, high in LAYERS:
        weights, gradients = np.linalg.norm(w[low:high]), np.linalg.norm(g[low:high])
        gamma = 2.0 * 0.1 * weights / (gradients + 0.5 * weights)
        expected = w[low:high] - gamma * (g[low:high] + 0.5 * w[low:high])
        np.testing.assert_allclose(method.solution()[low:high], expected, rtol=1e-12)


def test_zero_norm_layer_takes_schedules_rate():
    w, g = np.ones(9), np.ones(9)
    w[:3], g[3:7] = 0, 0
    method = started(w, momentum=0.0)
    method.apply({"g": torch.from_numpy(g.copy())}, Step(lr=0.25))
    solution = method.solution()
    assert torch.equal(solution[:3], torch.full((3,), -0.25, dtype=torch.float64))
    assert torch.equal(solution[3:7], torch.ones(4, dtype=torch.float64))
    assert torch.isfinite(solution).all()


def test_norm_is_of_workers_mean(tmp_path: Path):
    overrides = ("algorithm=lars", "algorithm.eta=0.01", "model=mlp", *RUN)
    apart = train(*overrides, "cluster.workers=3", "run.batch_size=8", folder=tmp_path)
    together = train(*overrides, "run.batch_size=24", folder=tmp_path)
    for name, value in together.weights.items():
        torch.testing.assert_close(apart.weights[name], value, rtol=1e-4, atol=1e-6)


def test_resumed_run_gives_the_same_bits(tmp_path: Path):
    overrides = ("algorithm=lars", "model=resnet8", *RUN, "run.micro_batch=16")
    whole = train(*overrides, folder=tmp_path)
    state = Trial(*overrides, folder=tmp_path, stop_after=4).stopped()
    again = Trial(*overrides, folder=tmp_path).resume(state).run()
    assert again.sha256 == whole.sha256
    assert equal(again.state, whole.state)


@pytest.mark.parametrize("eta", [0, -1.0])
def test_wrong_options_are_refused(eta: float):
    with pytest.raises(ValueError, match=rf"algorithm\.eta={eta}: .*; allowed: eta >"):
        LARS(eta=eta)
