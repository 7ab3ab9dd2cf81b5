from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from algorithms.base import Batch, Layer, Step
from algorithms.clars import CLARS
from tests.trial import Trial, equal, run_in, train

LAYERS = (Layer("a", 0, 3), Layer("b", 3, 7))
RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=2.0")


class Samples:
    """An oracle with a fixed gradient for each sample (B, n)."""

    def __init__(self, gradients: np.ndarray) -> None:
        self.gradients = gradients

    def gradient_and_norms(self, w: Tensor, batch: Batch, samples: int | None = None) -> tuple[Tensor, Tensor]:
        chosen = self.gradients[batch.ids.numpy()]
        norms = [np.linalg.norm(chosen[:samples, low:high], axis=1).mean() for _, low, high in LAYERS]
        return torch.from_numpy(chosen.mean(0)), torch.tensor(norms, dtype=torch.float64)


def started(w: np.ndarray, rank: int = 0, workers: int = 1, **options: Any) -> CLARS:
    method = CLARS(**options)
    method.prepare(LAYERS)
    method.start(torch.from_numpy(w.copy()), rank, workers)
    return method


def step(methods: list[CLARS], oracle: Any, ids: list[list[int]], lr: float) -> None:
    total = sum(map(len, ids))
    messages = []
    for method, own in zip(methods, ids, strict=True):
        batch = Batch(0, 0, torch.tensor(own))
        messages.append(method.local(oracle, batch, Step(lr=lr, relative_size=len(own) * len(ids) / total)))
    for method in methods:
        combined = {name: torch.stack([m[name] for m in messages]).mean(0) for name in messages[0]}
        assert {name: tensor.numel() for name, tensor in combined.items()} == method.layout(7)
        method.apply(combined, Step(lr=lr))


def test_steps_are_equation_4_7():
    random = np.random.default_rng(0)
    w = random.standard_normal(7)
    v = w.copy()
    method = started(w, eta=0.05, momentum=0.7)
    for scale in (6.4, 6.4, 3.2):
        g = random.standard_normal((5, 7))
        step([method], Samples(g), [[0, 1, 2, 3, 4]], scale)
        after = w.copy()
        for _, low, high in LAYERS:
            mean_norm = np.mean([np.sqrt((g[i, low:high] ** 2).sum()) for i in range(5)])
            gamma = scale * 0.05 * np.sqrt((w[low:high] ** 2).sum()) / mean_norm
            after[low:high] -= gamma * g[:, low:high].mean(0)
        w, v = after + 0.7 * (after - v), after
        np.testing.assert_allclose(method.solution(), w, rtol=1e-12)


def test_uneven_shares_average_over_all_samples():
    random = np.random.default_rng(1)
    w, g = random.standard_normal(7), random.standard_normal((5, 7))
    one = started(w)
    step([one], Samples(g), [[0, 1, 2, 3, 4]], 3.0)
    several = [started(w, rank, 2) for rank in range(2)]
    step(several, Samples(g), [[0, 1, 2], [3, 4]], 3.0)
    for method in several:
        torch.testing.assert_close(method.solution(), one.solution(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("workers", "each"), [(1, 5), (2, 3), (4, 2)])
def test_workers_divide_the_samples_for_norms(workers: int, each: int):
    asked = []

    class Asked(Samples):
        def gradient_and_norms(self, w: Tensor, batch: Batch, samples: int | None = None) -> tuple[Tensor, Tensor]:
            asked.append(samples)
            return super().gradient_and_norms(w, batch, samples)

    step(
        [started(np.ones(7), m, workers, samples=5) for m in range(workers)], Asked(np.ones((8, 7))), [[0]] * workers, 1
    )
    assert asked == [each] * workers


def test_where_all_samples_agree_it_is_lars(tmp_path: Path):
    """With batches of one sample the mean of norms is the norm of the mean."""
    overrides = ("model=mlp", *RUN, "dataset.limit_train=10", "run.batch_size=1", "algorithm.eta=0.001")
    clars = train("algorithm=clars", *overrides, folder=tmp_path)
    lars = train("algorithm=lars", *overrides, folder=tmp_path)
    for name, value in lars.weights.items():
        torch.testing.assert_close(clars.weights[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [None, 7])
def test_network_step_matches_single_sample_gradients(tmp_path: Path, samples: int | None):
    """Independent of the hooks: single gradients by torch.func."""
    overrides = ("algorithm=clars", "algorithm.weight_decay=0", "model=resnet8_nobn", "dataset.limit_train=20")
    short = ("dataset.limit_test=10", "run.epochs=1", "run.batch_size=20", "schedule.lr=6.4", "run.micro_batch=6")
    trial = Trial(*overrides, *short, f"algorithm.samples={'null' if samples is None else samples}", folder=tmp_path)
    before = trial.weights
    network: Any = trial.components.oracle.replica.module
    ids = trial.components.batches.batch(0).ids
    inputs, targets = trial.components.dataset.train.batch(ids)
    weights = {name: value.contiguous() for name, value in before.items()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return network.loss(functional_call(network, weights, (x[None],)), y[None])

    single = vmap(grad(loss), (None, 0, 0))(weights, inputs, targets)
    trial.run()
    layers = {name.rpartition(".")[0] for name in weights}
    assert len(layers) == len(trial.components.oracle.replica.layers)
    for layer in layers:
        own = [name for name in weights if name.rpartition(".")[0] == layer]
        squares = sum(single[name].flatten(1).square().sum(1) for name in own)
        assert isinstance(squares, Tensor)
        norm = sum(weights[name].square().sum() for name in own) ** 0.5
        gamma = 6.4 * 0.01 * norm / squares.sqrt()[:samples].mean()
        for name in own:
            # The first step with v_0 = w_0.
            expected = before[name] - 1.9 * gamma * single[name].mean(0)
            torch.testing.assert_close(trial.weights[name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_resumed_run_gives_the_same_bits(tmp_path: Path):
    overrides = ("algorithm=clars", "model=resnet8", *RUN, "algorithm.samples=20", "run.micro_batch=16")
    whole = train(*overrides, folder=tmp_path)
    state = Trial(*overrides, folder=tmp_path, stop_after=4).stopped()
    again = Trial(*overrides, folder=tmp_path).resume(state).run()
    assert again.sha256 == whole.sha256
    assert equal(again.state, whole.state)


@pytest.mark.slow
def test_two_processes_end_with_the_simulations_bits(tmp_path: Path):
    overrides = ("algorithm=clars", "model=mlp", *RUN, "run.batch_size=8", "cluster.workers=2", "algorithm.samples=6")
    code, simulated = run_in(tmp_path / "simulated", *overrides)
    also, processes = run_in(tmp_path / "processes", *overrides, "cluster=processes")
    assert code == also == 0
    assert simulated["weights_sha256"] == processes["weights_sha256"]


@pytest.mark.parametrize("samples", [0, -3, 2.5, True])
def test_wrong_options_are_refused(samples: Any):
    with pytest.raises(ValueError, match=rf"algorithm\.samples={samples}: .*; allowed: "):
        CLARS(samples=samples)
