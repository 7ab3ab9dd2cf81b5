"""Variance reduction against its definition: expectation, variance, an independent implementation, convergence."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.asysvrg import FULL, SNAPSHOT, AsySVRG, VarianceReducedWorker
from algorithms.base import Batch, Step
from runner.config.seeds import derive
from runner.train import build
from tests.trial import Trial, compose, train

CONVEX = ("model=linear", "dataset.limit_train=96", "dataset.limit_test=20", "run.batch_size=4")
C = 0.1


def numpy_svrg(
    inputs: np.ndarray, targets: np.ndarray, w: np.ndarray, *, seed: int, size: int, inner: int, pushes: int, lr: float
) -> np.ndarray:
    """Softmax regression by sequential SVRG in float64; w holds the weights (classes, features) and the biases."""
    n, classes = len(inputs), int(targets.max()) + 1
    rows = np.hstack([inputs, np.ones((n, 1))])

    def gradient(w: np.ndarray, ids: np.ndarray) -> np.ndarray:
        scores = rows[ids] @ w.T
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(ids)), targets[ids]] -= 1
        return chances.T @ rows[ids] / len(ids) + C * w

    assert classes == w.shape[0]
    per_pass = math.ceil(n / size)
    for push in range(pushes):
        if push % inner == 0:
            snapshot = w.copy()
            full = gradient(snapshot, np.arange(n))
        generator = torch.Generator().manual_seed(derive(seed, "permutation", push // per_pass))
        order = torch.randperm(n, generator=generator).numpy()
        ids = order[push % per_pass * size :][:size]
        w = w - lr * (gradient(w, ids) - gradient(snapshot, ids) + full)
    return w


def test_one_worker_is_an_independent_sequential_svrg(tmp_path: Path):
    given = ("algorithm=svrg", "algorithm.inner=30", f"algorithm.weight_decay={C}", "schedule.lr=0.05", "run.epochs=8")
    trial = Trial(*CONVEX, *given, "run.batch_size=7", folder=tmp_path)
    weights = {name: value.double().numpy() for name, value in trial.weights.items()}
    inputs, targets = trial.components.dataset.train.batch(torch.arange(96))
    names = sorted(weights, key=lambda name: weights[name].ndim)
    start = np.hstack([weights[names[1]], weights[names[0]][:, None]])
    pushes = len(trial.components.batches)
    # 768 = 96 + 30 pushes (2 · 96 · 2 for 28 and 14 each for two) + 96 + 12 pushes of 14, the last one not whole.
    assert pushes == 42
    expected = numpy_svrg(
        inputs.flatten(1).double().numpy(), targets.numpy(), start, seed=0, size=7, inner=30, pushes=pushes, lr=0.05
    )
    found = trial.run().weights
    np.testing.assert_allclose(found[names[1]].numpy(), expected[:, :-1], rtol=1e-3, atol=2e-6)
    np.testing.assert_allclose(found[names[0]].numpy(), expected[:, -1], rtol=1e-3, atol=2e-6)


@pytest.fixture(scope="module")
def components() -> build.RunComponents:
    return build.build_run(compose("algorithm=svrg", *CONVEX))


def single(components: build.RunComponents, half: VarianceReducedWorker, w: Tensor) -> Tensor:
    """v of every single sample, (n, weights)."""
    batches = [Batch(i, 0, torch.tensor([i])) for i in range(96)]
    return torch.stack([half.work(components.oracle, {"w": w}, batch)["v"].clone() for batch in batches]).double()


def shot(components: build.RunComponents, w: Tensor) -> VarianceReducedWorker:
    """A worker whose snapshot is w."""
    half = VarianceReducedWorker(C)
    half.receive(SNAPSHOT, {"w": w})
    everything = Batch(-1, 0, torch.arange(96))
    half.receive(FULL, {"g": half.answer(components.oracle, SNAPSHOT, everything)["g"] / 96})
    return half


def test_v_is_unbiased_and_calmer_near_snapshot(components: build.RunComponents):
    generator = torch.Generator().manual_seed(0)
    w = 0.05 * torch.randn(components.oracle.replica.weights.numel(), generator=generator)
    plain = single(components, VarianceReducedWorker(C), w)
    full = plain.mean(0)
    everything = Batch(0, 0, torch.arange(96))
    torch.testing.assert_close(full.float(), components.oracle.gradient(w, everything) + C * w)
    variances = []
    for distance in (0.0, 0.01, 0.1):
        away = w + distance * torch.randn(len(w), generator=generator)
        v = single(components, shot(components, away), w)
        torch.testing.assert_close(v.mean(0), full, rtol=1e-4, atol=1e-6)
        variances.append(float((v - full).square().sum(1).mean()))
    assert variances[0] < 1e-10
    assert 1e-6 < variances[1] < variances[2] / 30, "it is that of a difference of gradients: quadratic in w − w~"
    assert variances[2] < float((plain - full).square().sum(1).mean()) / 2, "below SGD's"


def slope(trial: Trial) -> float:
    """Norm of the full gradient where a run ended."""
    w = trial.executor.weights().clone()
    return float(torch.linalg.vector_norm(trial.components.oracle.gradient(w, Batch(0, 0, torch.arange(96))) + C * w))


@pytest.mark.slow
def test_linear_convergence_where_sgd_stalls(tmp_path: Path):
    def slopes(algorithm: str, passes: tuple[int, ...], *given: str) -> list[float]:
        run = (*CONVEX, f"algorithm={algorithm}", f"algorithm.weight_decay={C}", "schedule.lr=0.05", *given)
        return [slope(train(*run, f"run.epochs={number}", folder=tmp_path)) for number in passes]

    svrg = slopes("svrg", (30, 60, 90), "algorithm.inner=48")
    assert svrg[1] < svrg[0] / 5
    assert svrg[2] < svrg[1] / 5
    asynchronous = slopes("asysvrg", (90,), "algorithm.inner=48", "cluster.workers=3")
    sgd = slopes("sgd", (30, 90))
    assert sgd[1] > sgd[0] / 3
    assert max(svrg[2], asynchronous[0]) < sgd[1] / 100


def test_first_epochs_are_sgd(tmp_path: Path):
    same = ("model=mlp", "dataset.limit_train=96", "run.batch_size=7", "run.epochs=2", "cluster.workers=3")
    first = ("algorithm=asysvrg", "algorithm.sgd_epochs=2", "algorithm.sgd_lr=0.2", "algorithm.sgd_decay=0.5")
    ours = train(*same, *first, "algorithm.weight_decay=0", "schedule.lr=9", folder=tmp_path)
    inverse = ("schedule=inverse", "schedule.lr=0.2", "schedule.power=0.5")
    plain = train(*same, "algorithm=asgd", "algorithm.weight_decay=0", *inverse, folder=tmp_path)
    assert ours.sha256 == plain.sha256
    assert ours.control.epoch == 2
    row, other = ours.notes.rows[-1], plain.notes.rows[-1]
    assert {**row, "lr": 0} == {**other, "lr": 0}


def test_restored_worker_pushes_the_same(components: build.RunComponents):
    n = components.oracle.replica.weights.numel()
    server = AsySVRG(inner=5, weight_decay=C)
    server.plan(96, 4)
    server.start(torch.randn(n, generator=torch.Generator().manual_seed(1)) / 20, 2)
    fresh: Any = server.worker(1)
    fresh.restore(server.restore(1))
    assert fresh.snapshot is None, "nothing is known before the first barrier"
    half: Any = server.worker(0)
    half.receive(SNAPSHOT, server.broadcast(SNAPSHOT))
    server.collect(SNAPSHOT, half.answer(components.oracle, SNAPSHOT, Batch(-1, 0, torch.arange(96))))
    half.receive(FULL, server.broadcast(FULL))
    batch = Batch(0, 0, torch.arange(4))
    server.push(0, half.work(components.oracle, server.pull(0), batch), Step(lr=0.1))
    again: Any = server.worker(0)
    again.restore(server.restore(0))
    expected = half.work(components.oracle, server.pull(0), batch)["v"].clone()
    assert torch.equal(again.work(components.oracle, server.pull(0), batch)["v"], expected)


def test_snapshots_stay_out_of_training_loss(tmp_path: Path):
    trial = train("algorithm=svrg", *CONVEX, "run.epochs=1.1", folder=tmp_path)
    assert trial.control.updates == 2
    assert trial.notes.rows[0]["train_loss"] is None, "the first pass is a full gradient"
    assert float(trial.components.oracle.totals.sum()) == 0
    trial = Trial("algorithm=svrg", *CONVEX, "run.epochs=1.05", "run.eval_every=9", folder=tmp_path)
    w = trial.components.oracle.replica.weights.clone()
    inputs, targets = trial.components.dataset.train.batch(trial.components.batches.batch(0).ids)
    trial.components.oracle.replica.weights.copy_(w)
    loss = float(trial.components.oracle.loss(inputs, targets)[0].detach())
    assert trial.run().notes.rows[-1]["train_loss"] == pytest.approx(loss)
