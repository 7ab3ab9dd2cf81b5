"""Dis-dfSDCA against independent NumPy, its primal-dual relation on schedules, and what it converges to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.base import Problem, Step
from algorithms.dis_dfsdca import DfSDCA, DisDfSDCA, DualFreeWorker
from data.base import Split
from models.logistic import Logistic
from models.scalar_loss import ScalarLoss
from models.smoothed_hinge import SmoothedHinge
from runner.config.errors import InputError
from runner.gradients.objective import Objective
from runner.run_folder import checkpoint
from tests.algorithms.ridge_problem import Small, pca
from tests.trial import Trial, equal, run_in, train

RIDGE = ("model=ridge", "dataset=synthetic", "dataset.classes=2", "dataset.shape=[12]", "dataset.noise=2.0")
SMALL = (*RIDGE, "dataset.train=203", "dataset.test=40", "run.batch_size=10")
LR = 3e-4
"""Samples' squared norms are about 60: ten of them, from four workers, allow no more."""


class Server:
    """A server and its workers, driven by hand."""

    def __init__(self, small: Small, method: DisDfSDCA, lr: float) -> None:
        self.small = small
        method.bind_problem(small.problem)
        method.start(torch.zeros(small.problem.features), small.problem.workers)
        method.announce(Step(lr))
        self.method = method
        self.halves = [method.worker(k) for k in range(small.problem.workers)]
        self.pulled: dict[int, dict[str, Tensor]] = {}

    def pull(self, worker: int) -> None:
        self.pulled[worker] = {name: tensor.clone() for name, tensor in self.method.pull(worker).items()}

    def work(self, worker: int, number: int) -> dict[str, Tensor]:
        batch = self.small.batch(number, worker)
        return self.halves[worker].work(self.small.oracle, self.pulled[worker], batch)

    def round(self, worker: int, number: int) -> None:
        self.pull(worker)
        self.method.push(worker, self.work(worker, number), Step(0.0))


def true_alpha(server: Server) -> Tensor:
    """Return Σ α_i as a vector (d,), each worker's own."""
    small, total = server.small, torch.zeros(server.small.problem.features, dtype=torch.float64)
    for k, half in enumerate(server.halves):
        assert isinstance(half, DualFreeWorker)
        shard = small.problem.shard(k)
        own = half.alpha[shard.start : shard.stop].double()
        total += own @ small.x[shard.start : shard.stop].double() if small.problem.scalar else own.sum(0)
    return total


@pytest.mark.parametrize("kind", ["ridge", "pca"])
def test_primal_dual_relation_holds(kind: str):
    model = pca(40, 6, 2.0, 0.1) if kind == "pca" else None
    small, lam, lr = Small(40, 6, 3, 4, model=model), 0.1, 0.05
    server = Server(small, DisDfSDCA(weight_decay=lam), lr)
    flying: dict[int, dict[str, Tensor]] = {}
    # Some workers are slow: pushes of several rounds come in this order.
    for worker in range(3):
        server.pull(worker)
        flying[worker] = {k: v.clone() for k, v in server.work(worker, worker).items()}
    for number, worker in enumerate([0, 0, 2, 0, 1, 2, 0, 1, 1, 0, 2, 0, 0, 1], start=3):
        server.method.push(worker, flying.pop(worker), Step(99.0))
        mirror = server.method.alpha.double()
        own = mirror @ small.x.double() if small.problem.scalar else mirror.sum(0)
        torch.testing.assert_close(own / (lam * 40), server.method.w.double(), atol=3e-7, rtol=1e-5)
        expected = server.method.w.double() - lr * sum(m["v"].double() for m in flying.values())
        torch.testing.assert_close(true_alpha(server) / (lam * 40), expected, atol=3e-7, rtol=1e-5)
        server.pull(worker)
        flying[worker] = {k: v.clone() for k, v in server.work(worker, number).items()}
        expected = server.method.w.double() - lr * sum(m["v"].double() for m in flying.values())
        torch.testing.assert_close(true_alpha(server) / (lam * 40), expected, atol=3e-7, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 5, 60])
def test_one_worker_matches_numpy_sdca(batch: int):
    """Algorithm 5 with batch=1; with more, samples that are drawn several times meet what earlier draws left."""
    n, d, lam, eta = 30, 5, 0.2, 0.03
    small = Small(n, d, 1, batch)
    server = Server(small, DfSDCA(weight_decay=lam), eta)
    x, y = small.x.double().numpy(), 2.0 * small.targets.numpy() - 1
    alpha, w = np.zeros((n, d)), np.zeros(d)
    for number in range(120 // batch + 3):
        server.round(0, number)
        total = np.zeros(d)
        for i in small.batch(number).ids.tolist():
            kappa = (x[i] @ w - y[i]) * x[i] + alpha[i]
            alpha[i] = alpha[i] - eta * lam * n * kappa
            total += kappa
        w = w - eta * total
        np.testing.assert_allclose(server.method.w.numpy(), w, atol=1e-5)
    np.testing.assert_allclose(server.method.alpha.numpy()[:, None] * x, alpha, atol=1e-5)


def test_dual_vectors_are_those_of_numpy():
    n, d, lam, eta = 20, 4, 0.1, 0.05
    small = Small(n, d, 1, 7, model=pca(n, d, 1.5, lam))
    server = Server(small, DfSDCA(weight_decay=lam), eta)
    x, b = small.x.double().numpy(), small.model.get_buffer("b").double().numpy()
    alpha, w = np.zeros((n, d)), np.zeros(d)
    for number in range(25):
        server.round(0, number)
        total = np.zeros(d)
        for i in small.batch(number).ids.tolist():
            kappa = (1.5 - lam) * w - x[i] * (x[i] @ w) - b + alpha[i]
            alpha[i] -= eta * lam * n * kappa
            total += kappa
        w = w - eta * total
        np.testing.assert_allclose(server.method.w.numpy(), w, atol=1e-5)
    np.testing.assert_allclose(server.method.alpha.numpy(), alpha, atol=1e-5)


def distance(small: Small, method: DisDfSDCA, lr: float, rounds: int) -> list[float]:
    """Return ‖w − w*‖ after every round of all workers."""
    server, best = Server(small, method, lr), small.solution(method.weight_decay)
    found = []
    for number in range(rounds):
        for worker in range(small.problem.workers):
            server.round(worker, number * small.problem.workers + worker)
        found.append(float(np.linalg.norm(server.method.w.numpy() - best)))
    return found


def test_convergence_is_linear():
    found = distance(Small(60, 5, 2, 10), DisDfSDCA(weight_decay=0.1), 0.04, 150)
    assert found[49] < 0.2 * found[0]
    assert found[99] < 0.2 * found[49]
    assert found[149] < 1e-4


@pytest.mark.parametrize("sampling", [pytest.param("importance", marks=pytest.mark.slow), "adaptive"])
def test_weighted_sampling_is_faster_when_badly_scaled(sampling: str):
    scales = torch.full((100,), 0.05)
    scales[::20] = 4.0
    small, lam = Small(100, 4, 1, 5, scales=scales), 0.05

    def end(how: str) -> float:
        # The best of a grid of rates for each.
        rates = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
        return min(distance(small, DisDfSDCA(weight_decay=lam, sampling=how), lr, 400)[-1] for lr in rates)

    assert end(sampling) < 0.5 * end("uniform")


def test_non_convex_functions_with_convex_sum_converge():
    n, d, mu = 400, 10, 0.5
    lam = 50 / n
    small = Small(n, d, 4, 10, model=pca(n, d, mu, lam))
    x = small.x.double().numpy()
    largest = np.linalg.eigvalsh(x.T @ x / n).max()
    assert largest + lam < mu < 1 + lam, "the sum is convex, no single function is"
    server = Server(small, DisDfSDCA(weight_decay=lam), 0.01)
    best = np.linalg.solve(mu * np.eye(d) - x.T @ x / n, small.model.get_buffer("b").double().numpy())
    for number in range(2400):
        server.round(number % 4, number)
    assert np.linalg.norm(server.method.w.numpy() - best) < 1e-4 * np.linalg.norm(best)


@pytest.mark.slow
def test_gap_is_positive_and_vanishes(tmp_path: Path):
    options = ("algorithm.weight_decay=1", "run.batch_size=2", "run.epochs=80", "schedule.lr=1e-3")
    run = train("algorithm=dis_dfsdca", *SMALL, *options, folder=tmp_path)
    gaps = [row["duality_gap"] for row in run.notes.rows]
    assert all(row["duality_gap"] >= 0 and row["suboptimality"] >= 0 for row in run.notes.rows)
    assert all(row["primal"] - row["dual"] == row["duality_gap"] for row in run.notes.rows)
    assert gaps[-1] < 1e-6 < gaps[0]
    assert run.notes.rows[-1]["suboptimality"] <= gaps[-1]


@pytest.mark.parametrize("model", [Logistic(shape=(5,), classes=2), SmoothedHinge(shape=(5,), classes=2, gamma=0.5)])
def test_gap_of_other_losses_vanishes(model: ScalarLoss):
    small = Small(60, 5, 4, 5, model=model)
    server = Server(small, DisDfSDCA(weight_decay=0.1), 0.05)
    objective = Objective(model, Split(small.x, small.targets), 0.1, server.method.duals)
    rows = []
    for number in range(801):
        if number % 200 == 0:
            rows.append(objective(server.method.w, [server.method.state()]))
        server.round(number % 4, number)
    assert all(row["duality_gap"] >= row["suboptimality"] - 1e-12 for row in rows)
    assert rows[-1]["duality_gap"] < 1e-5 < rows[0]["duality_gap"]


def test_rates_beyond_the_bound_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("WARNING", "dcrun")
    Trial("algorithm=dis_dfsdca", *SMALL, "schedule.lr=0.09", folder=tmp_path)
    assert not caplog.records
    Trial("algorithm=dis_dfsdca", *SMALL, "schedule.lr=0.1", folder=tmp_path)
    assert "schedule.lr=0.1: this problem needs a rate below 0.0985, or it diverges" in caplog.text
    method = DisDfSDCA(weight_decay=0.1, sampling="adaptive")
    method.bind_problem(Problem(200, 3, 4, 10, True))
    assert method.largest_rate() == 0.05
    assert method.cost.gradients == 1 + 50 / 10


def test_it_diverges_beyond_the_bound(tmp_path: Path):
    code, summary = run_in(tmp_path / "run", "algorithm=dfsdca", *SMALL, "run.epochs=200", "schedule.lr=0.11")
    assert (code, summary["status"]) == (0, "diverged")


@pytest.mark.parametrize("algorithm", ["dis_dfsdca", "dfsdca", "cocoa_plus", "sdca"])
def test_lambda_zero_is_refused(algorithm: str, tmp_path: Path):
    with pytest.raises(Exception, match=r"algorithm.weight_decay=0\S*: a dual method divides by it; allowed: "):
        Trial(f"algorithm={algorithm}", *SMALL, "algorithm.weight_decay=0", folder=tmp_path)


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        (
            ("algorithm=dis_dfsdca", "model=mlp"),
            r"^model=mlp: algorithm=dis_dfsdca needs .*; allowed: ridge, logistic, smoothed_hinge, pca_",
        ),
        (
            ("algorithm=cocoa_plus", "model=pca_step", "dataset=unit_vectors"),
            r"^model=pca_step: algorithm=cocoa_plus needs a convex loss that has a dual; allowed: ridge, logistic, smo",
        ),
        (
            ("algorithm=dis_dfsdca", "model=ridge"),
            r"^model=ridge: separates two classes, but the dataset has 10; a",
        ),
    ],
)
def test_problems_that_it_cannot_solve_are_refused(overrides: tuple[str, ...], wrong: str, tmp_path: Path):
    with pytest.raises(ValueError, match=wrong):
        Trial(*overrides, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("replacement", [True, False])
def test_one_worker_matches_processes(replacement: bool, tmp_path: Path):
    options = ("run.epochs=2", f"schedule.lr={LR}", "cluster.workers=1", f"algorithm.replacement={replacement}")
    overrides = ("algorithm=dis_dfsdca", *SMALL, *options)
    code, real = run_in(tmp_path / "real", *overrides, "cluster=processes")
    assert code == 0
    simulated = train(*overrides, folder=tmp_path)
    assert real["weights_sha256"] == simulated.sha256
    assert real["duality_gap"] == simulated.notes.rows[-1]["duality_gap"]


def test_a_rate_that_falls_keeps_the_relation(tmp_path: Path):
    options: Any = ("schedule=multistep", "schedule.milestones=[1,2]", "schedule.gamma=0.3", f"schedule.lr={LR}")
    run = train("algorithm=dis_dfsdca", *SMALL, "run.epochs=3", *options, folder=tmp_path)
    split = run.components.dataset.train
    combined = run.state["alpha"].double() @ split.batch(torch.arange(203))[0].double() / (0.1 * 203)
    torch.testing.assert_close(combined, run.state["w"].double(), atol=5e-6, rtol=1e-4)


def test_broadcast_refreshes_all_weights(tmp_path: Path):
    options = (*SMALL, "run.epochs=2", f"schedule.lr={LR}", "cluster.compute.distribution=constant")
    run = train("algorithm=dis_dfsdca", *options, "algorithm.inner=8", folder=tmp_path)
    staleness = [update["staleness"] for update in run.notes.updates if "staleness" in update]
    # After a broadcast four workers pull the same w: the first push after it is of staleness 0, the next of 1 ...
    assert staleness[:10] == [0, 1, 2, 3, 3, 3, 3, 3, 0, 1]
    free = train("algorithm=dis_dfsdca", *options, folder=tmp_path)
    assert run.sha256 != free.sha256
    each = train("algorithm=dis_dfsdca", *options, "algorithm.inner=1", folder=tmp_path)
    assert {update.get("staleness", 0) for update in each.notes.updates} == {0}


@pytest.mark.parametrize("inner", [0, 1.5, True])
def test_wrong_numbers_of_pushes_are_refused(inner: Any):
    with pytest.raises(ValueError, match=rf"^algorithm.inner={inner}: .*; allowed: integers from 1, or null"):
        DisDfSDCA(inner=inner)


WHOLE_SHARDS = (*RIDGE, "dataset.train=200", "dataset.test=40", "run.batch_size=50", f"schedule.lr={LR}")
"""Four workers whose shards have as many samples as a message."""


@pytest.mark.parametrize("algorithm", ["dis_dfsdca", "dfsdca"])
def test_distinct_samples_are_used_once_a_message(algorithm: str, tmp_path: Path):
    workers = 4 if algorithm == "dis_dfsdca" else 1
    options = ("run.epochs=1", f"run.batch_size={200 // workers}", "cluster.compute.distribution=constant")
    given = (f"algorithm={algorithm}", *WHOLE_SHARDS, *options)
    run = train(*given, "algorithm.replacement=false", folder=tmp_path)
    y = 2.0 * run.components.dataset.train.targets - 1
    # From w = 0 and α = 0 every sample of every shard once: κ = −y.
    torch.testing.assert_close(run.state["alpha"], LR * 0.1 * 200 * y)
    assert int((train(*given, folder=tmp_path).state["alpha"] == 0).sum()) > 20


def test_distinct_runs_continue_with_the_same_bits(tmp_path: Path):
    given = ("algorithm=dis_dfsdca", *WHOLE_SHARDS, "run.epochs=3", "algorithm.replacement=false", "run.batch_size=20")
    given = (*given, "run.checkpoint_every=100")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = train(*given, folder=whole)
    checkpoint.save(cut, 5, Trial(*given, folder=cut, stop_after=5).stopped(), keep=1)
    found = checkpoint.newest_intact(cut)
    assert found is not None
    continued = Trial(*given, folder=cut).resume(found[0]).run()
    assert continued.sha256 == expected.sha256
    assert equal(continued.state, expected.state)


def test_more_distinct_samples_than_a_shard_are_refused(tmp_path: Path):
    given = ("algorithm=dis_dfsdca", *WHOLE_SHARDS, "algorithm.replacement=false", "run.batch_size=51")
    wrong = r"^run.batch_size=51: 4 workers would need 204 .* has 200; allowed: 1 to 50$"
    with pytest.raises(InputError, match=wrong):
        Trial(*given, folder=tmp_path)


@pytest.mark.parametrize("sampling", ["importance", "adaptive"])
def test_distinct_samples_are_drawn_uniformly_alone(sampling: str):
    wrong = rf"^algorithm.replacement=false: sampling={sampling} .*; allowed: true, or with sampling=uniform$"
    with pytest.raises(ValueError, match=wrong):
        DisDfSDCA(sampling=sampling, replacement=False)
