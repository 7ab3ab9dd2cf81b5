"""Variance reduction against its definition: expectation, variance, an independent implementation, convergence."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.asysvrg import FULL, SNAPSHOT, AsySVRG, VarianceReducedWorker
from algorithms.base import Batch, Step, shard_range
from runner.config.seeds import derive
from runner.train import build
from tests.trial import Trial, compose, equal, run_in, train

CONVEX = ("model=linear", "dataset.limit_train=96", "dataset.limit_test=20", "run.batch_size=4")
C = 0.1


def softmax_gradient(inputs: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray, Any], np.ndarray]:
    """Softmax regression with an l2 term, in float64; w holds the weights (classes, features) and the biases."""
    rows = np.hstack([inputs, np.ones((len(inputs), 1))])

    def gradient(w: np.ndarray, ids: np.ndarray) -> np.ndarray:
        scores = rows[ids] @ w.T
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(ids)), targets[ids]] -= 1
        return chances.T @ rows[ids] / len(ids) + C * w

    return gradient


def numpy_svrg(
    inputs: np.ndarray, targets: np.ndarray, w: np.ndarray, *, seed: int, size: int, inner: int, pushes: int, lr: float
) -> np.ndarray:
    """Sequential SVRG, its samples in passes."""
    n, gradient = len(inputs), softmax_gradient(inputs, targets)
    assert int(targets.max()) + 1 == w.shape[0]
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
    pushes = len(trial.components.batches)
    # 768 = 96 + 30 pushes (2 · 96 · 2 for 28 and 14 each for two) + 96 + 12 pushes of 14, the last one not whole.
    assert pushes == 42
    expected = numpy_svrg(*start_of(trial), seed=0, size=7, inner=30, pushes=pushes, lr=0.05)
    bias, weight = sorted(trial.run().weights.values(), key=lambda value: value.dim())
    np.testing.assert_allclose(weight.numpy(), expected[:, :-1], rtol=1e-3, atol=2e-6)
    np.testing.assert_allclose(bias.numpy(), expected[:, -1], rtol=1e-3, atol=2e-6)


def start_of(trial: Trial) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and initial weights of a linear classifier, as `softmax_gradient` takes them."""
    inputs, targets = trial.components.dataset.train.batch(torch.arange(96))
    bias, weight = sorted((value.double().numpy() for value in trial.weights.values()), key=np.ndim)
    return inputs.flatten(1).double().numpy(), targets.numpy(), np.hstack([weight, bias[:, None]])


def drawn(number: int, pool: range, replacement: bool) -> list[int]:
    """The samples of batch `number`, of seven but for the last of each pass over 96, by the run's generators."""
    size, key = min(7, 96 - number % 14 * 7), derive(0, "drawn", number, 0)
    if replacement:
        places = torch.randint(len(pool), (size,), generator=torch.Generator().manual_seed(key)).tolist()
    else:
        places = np.random.Generator(np.random.Philox(key=key)).choice(len(pool), size, replace=False).tolist()
    return [pool[place] for place in places]


@pytest.mark.parametrize(
    ("workers", "own_shard", "replacement"), [(3, True, True), (3, True, False), (3, False, True), (1, False, True)]
)
def test_draws_are_those_of_algorithm_3(workers: int, own_shard: bool, replacement: bool, tmp_path: Path):
    """Algorithms 2 and 3 in NumPy, along the schedule of the run: who pushed what, computed from which weights."""
    options = (
        f"algorithm.own_shard={own_shard}",
        f"algorithm.replacement={replacement}",
        f"algorithm.weight_decay={C}",
    )
    given = ("algorithm=asysvrg", "algorithm.inner=20", *options, "schedule.lr=0.05", "run.epochs=6")
    trial = Trial(*CONVEX, *given, "run.batch_size=7", f"cluster.workers={workers}", folder=tmp_path)
    inputs, targets, w = start_of(trial)
    executor: Any = trial.executor
    schedule, done = [], executor.leases.done

    def noted(worker: int) -> list[Batch]:
        (batch,) = done(worker)
        schedule.append((worker, executor.version[worker], batch.number))
        return [batch]

    executor.leases.done = noted
    found = sorted(trial.run().weights.values(), key=lambda value: value.dim())
    assert len(schedule) == len(trial.components.batches) > 20
    gradient, history = softmax_gradient(inputs, targets), [w]
    full = snapshot = w
    for push, (worker, pulled, number) in enumerate(schedule):
        if push % 20 == 0:
            snapshot = history[-1]
            full = gradient(snapshot, np.arange(96))
        ids = drawn(number, shard_range(96, workers, worker) if own_shard else range(96), replacement)
        v = gradient(history[pulled], ids) - gradient(snapshot, ids) + full
        history.append(history[-1] - 0.05 * v)
    np.testing.assert_allclose(found[1].numpy(), history[-1][:, :-1], rtol=1e-3, atol=2e-6)
    np.testing.assert_allclose(found[0].numpy(), history[-1][:, -1], rtol=1e-3, atol=2e-6)


OWN = ("algorithm=asysvrg", "algorithm.own_shard=true", "algorithm.inner=11", "cluster.workers=3")


@pytest.mark.parametrize("replacement", ["true", "false"])
def test_runs_with_own_shards_go_on_exactly(replacement: str, tmp_path: Path):
    given = (*CONVEX, *OWN, f"algorithm.replacement={replacement}", "run.epochs=4", "run.checkpoint_every=100")
    expected = train(*given, folder=tmp_path)
    stopped = Trial(*given, folder=tmp_path, stop_after=13)
    continued = Trial(*given, folder=tmp_path).resume(stopped.stopped()).run()
    assert continued.sha256 == expected.sha256
    assert equal(continued.state, expected.state)


@pytest.mark.slow
def test_a_process_draws_the_same_samples(tmp_path: Path):
    """With several workers: tests/runner/loop/test_shards.py."""
    given = (*CONVEX, *OWN, "cluster.workers=1", "run.epochs=3")
    code, real = run_in(tmp_path / "real", *given, "cluster=processes")
    assert code == 0
    assert real["weights_sha256"] == train(*given, folder=tmp_path).sha256


@pytest.mark.parametrize("key", ["own_shard", "replacement"])
def test_draws_are_chosen_by_true_or_false(key: str):
    wrong: Any = {key: "yes"}
    with pytest.raises(ValueError, match=rf"^algorithm.{key}=yes: is neither true nor false; allowed: true, false$"):
        AsySVRG(**wrong)


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
