"""CoCoA+ and SDCA: steps that maximise the dual subproblem, against independent loops in NumPy and against SciPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, sparse

from algorithms import cocoa_plus, sdca_blocks
from algorithms.base import Step
from algorithms.cocoa_plus import SDCA, CoCoAPlus, blocked_steps, sdca_steps
from data.base import Split
from data.sparse import CompressedRows
from models.logistic import Logistic
from models.objective import RowObjective
from models.smoothed_hinge import SmoothedHinge
from runner.gradients.objective import Objective
from tests.algorithms.ridge_problem import Small
from tests.algorithms.test_dis_dfsdca import SMALL
from tests.trial import run_in, train


def started(small: Small, workers: int, **options: Any) -> list[CoCoAPlus]:
    methods = [CoCoAPlus(**options) for _ in range(workers)]
    for rank, method in enumerate(methods):
        method.bind_problem(small.problem)
        method.start(torch.zeros(small.problem.features), rank, workers)
    return methods


def advance(small: Small, methods: list[CoCoAPlus], number: int) -> None:
    """Take one round as an executor does."""
    contributions = [m.local(small.oracle, small.batch(number, k), Step(0.0)) for k, m in enumerate(methods)]
    mean = sum(c["v"] for c in contributions if c is not None) / len(methods)
    for method in methods:
        method.apply({"v": mean}, Step(0.0))  # type: ignore[dict-item]


def test_a_step_maximises_the_subproblem():
    n, lam = 20, 0.1
    small = Small(n, 4, 1, 1)
    [method] = started(small, 1, weight_decay=lam)
    x, y = small.x.double().numpy(), 2.0 * small.targets.numpy() - 1
    for number in range(60):
        [i] = small.batch(number).ids.tolist()
        alpha, w = float(method.alpha[i]), method.w.double().numpy().copy()

        def negative(delta: float, a: float = alpha, w: np.ndarray = w, i: int = i) -> float:
            conjugate = 0.5 * (a + delta) ** 2 - (a + delta) * y[i]  # φ_i*(−(α_i + δ))
            return conjugate / n + lam / 2 * np.sum((w + delta * x[i] / (lam * n)) ** 2)  # eq. 3.4, its negative

        best = optimize.minimize_scalar(negative).x  # type: ignore[attr-defined]
        advance(small, [method], number)
        assert float(method.alpha[i]) - alpha == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(("workers", "gamma"), [(1, 1.0), (3, 1.0), (3, 1 / 3)])
def test_rounds_match_a_numpy_loop(workers: int, gamma: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sdca_blocks, "BLOCK", 7)
    n, d, lam, h = 31, 5, 0.1, 25
    small = Small(n, d, workers, h)
    methods = started(small, workers, weight_decay=lam, gamma=gamma)
    x, y = small.x.double().numpy(), 2.0 * small.targets.numpy() - 1
    alpha, w, sigma = np.zeros(n), np.zeros(d), gamma * workers
    for number in range(12):
        step = np.zeros(d)
        for k in range(workers):
            ids = small.batch(number, k).ids.tolist()
            assert len(set(ids)) < len(ids), "some samples are drawn again"
            change, u = np.zeros(n), w.copy()
            for i in ids:
                delta = (y[i] - x[i] @ u - alpha[i] - change[i]) / (1 + sigma * (x[i] @ x[i]) / (lam * n))
                change[i] += delta
                u += sigma / (lam * n) * delta * x[i]
            alpha += gamma * change
            step += gamma * change @ x / (lam * n)
        w = w + step
        advance(small, methods, number)
        for method in methods:
            np.testing.assert_allclose(method.w.numpy(), w, atol=2e-6)
        found = methods[0].duals([method.state() for method in methods])
        assert found is not None
        np.testing.assert_allclose(found.numpy(), alpha, atol=2e-6)
        np.testing.assert_allclose(found.double().numpy() @ x / (lam * n), w, atol=2e-6)


def losses(margins: np.ndarray, model: str) -> np.ndarray:
    hinge = np.where(margins >= 1, 0, np.where(margins <= 0, 0.5 - margins, (1 - margins) ** 2 / 2))
    return np.logaddexp(0, -margins) if model == "logistic" else hinge


def negative_conjugate(b: float, model: str) -> float:
    """Return −φ*(−α), b = α y."""
    if model == "smoothed_hinge":
        return b - b**2 / 2
    return -sum(p * np.log(p) for p in (b, 1 - b) if p > 0)


MODELS: dict[str, Callable[[], RowObjective]] = {
    "logistic": lambda: Logistic(shape=(5,), classes=2),
    "smoothed_hinge": lambda: SmoothedHinge(shape=(5,), classes=2),
}


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize(("workers", "gamma", "sigma"), [(1, 1.0, None), (3, 1.0, None), (3, 0.5, 2.0)])
def test_rounds_of_other_losses_match_a_numpy_loop(model: str, workers: int, gamma: float, sigma: float | None):
    """Each step by SciPy's bounded search over b, and in NumPy's float64."""
    n, d, lam, h = 31, 5, 0.1, 15
    small = Small(n, d, workers, h, scales=torch.linspace(0.1, 4, n), model=MODELS[model]())
    options = {"weight_decay": lam, "gamma": gamma} | ({} if sigma is None else {"sigma": sigma})
    methods = started(small, workers, **options)
    x, y = small.x.double().numpy(), 2.0 * small.targets.numpy() - 1
    alpha, w, sigma = np.zeros(n), np.zeros(d), gamma * workers if sigma is None else sigma
    for number in range(4):
        step = np.zeros(d)
        for k in range(workers):
            change, u = np.zeros(n), w.copy()
            for i in small.batch(number, k).ids.tolist():
                old, z, q = alpha[i] + change[i], x[i] @ u, sigma / (lam * n) * x[i] @ x[i]

                def negative(b: float, i: int = i, old: Any = old, z: Any = z, q: Any = q) -> float:
                    delta = b * y[i] - old
                    return -negative_conjugate(b, model) + delta * z + q / 2 * delta**2

                b = optimize.minimize_scalar(negative, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}).x  # type: ignore[attr-defined]
                change[i] += b * y[i] - old
                u += sigma / (lam * n) * (b * y[i] - old) * x[i]
            alpha += gamma * change
            step += gamma * change @ x / (lam * n)
        w = w + step
        advance(small, methods, number)
        found = methods[0].duals([method.state() for method in methods])
        assert found is not None
        np.testing.assert_allclose(found.numpy(), alpha, atol=3e-6)
        np.testing.assert_allclose(methods[0].w.numpy(), w, atol=3e-5)
        assert ((found.numpy() * y >= 0) & (found.numpy() * y <= 1)).all(), "in the domain, to the bit"


@pytest.mark.parametrize("model", list(MODELS))
def test_training_reports_the_loss_at_the_pulled_weights(model: str):
    small = Small(31, 5, 1, 15, model=MODELS[model]())
    [method] = started(small, 1, weight_decay=0.1)
    for number in range(3):
        w, ids = method.w.double().numpy().copy(), small.batch(number).ids.unique()
        small.oracle.take_totals()
        advance(small, [method], number)
        y = 2.0 * small.targets[ids].numpy() - 1
        margins = y * (small.x[ids].double().numpy() @ w)
        total, errors, count = small.oracle.take_totals().tolist()
        assert total == pytest.approx(losses(margins, model).sum(), rel=1e-5)
        # An output of 0 guesses class 0.
        assert (errors, count) == (np.sum(np.where(y > 0, margins <= 0, margins < 0)), len(ids))


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("narrow", [False, True])
def test_blocked_steps_are_algorithm_4(narrow: bool, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cocoa_plus, "BLOCK", block)
    monkeypatch.setattr(sdca_blocks, "BLOCK", block)
    if not narrow:
        monkeypatch.setattr(sdca_blocks, "FEATURES", 4)
    small = Small(15, 5, 1, 40)
    ids, drawn = small.batch(0).ids.unique(return_inverse=True)
    assert len(ids) < len(drawn), "some samples are drawn again"
    generator = torch.Generator().manual_seed(0)
    w, alpha = torch.randn(5, generator=generator).double(), torch.randn(len(ids), generator=generator).double()
    rows = small.oracle.rows(ids, counted=False)
    rows.x = rows.x.double()
    residue = rows.slopes(w) + alpha
    change, u = blocked_steps(rows.x, drawn, residue, 3.0)
    expected, sum_of_changes = sdca_steps(rows, drawn, w, alpha, 3.0)
    torch.testing.assert_close(change, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(u, sum_of_changes, rtol=1e-12, atol=1e-13)
    assert expected.abs().max() > 0.1
    once, in_turn = blocked_steps(rows.x, None, residue, 3.0), torch.arange(len(ids))
    for found, wanted in zip(once, sdca_steps(rows, in_turn, w, alpha, 3.0), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    rows.x = CompressedRows(sparse.csr_matrix(rows.x.numpy()))
    torch.testing.assert_close(sdca_steps(rows, drawn, w, alpha, 3.0)[0], expected, rtol=1e-12, atol=1e-13)


def test_sigma_is_gamma_times_workers_unless_given():
    def after(rounds: int, **options: float) -> torch.Tensor:
        small = Small(31, 5, 3, 25)
        methods = started(small, 3, weight_decay=0.1, gamma=0.5, **options)
        for number in range(rounds):
            advance(small, methods, number)
        return methods[0].w

    assert torch.equal(after(2), after(2, sigma=1.5))
    assert not torch.equal(after(2), after(2, sigma=0.75))


def test_larger_sigma_takes_smaller_steps():
    small = Small(31, 5, 3, 25)
    changes = []
    for sigma in (1.0, 3.0, 9.0):
        [method, *_] = started(small, 3, weight_decay=0.1, sigma=sigma)
        contribution = method.local(small.oracle, small.batch(0, 0), Step(0.0))
        assert contribution is not None
        changes.append(float(contribution["v"].norm()))
    assert changes[0] > 1.5 * changes[1] > 2 * changes[2]


def test_one_worker_is_sdca_to_the_bit(tmp_path: Path):
    options = (*SMALL, "run.epochs=3")
    plus = train("algorithm=cocoa_plus", *options, "cluster.workers=1", folder=tmp_path)
    alone = train("algorithm=sdca", *options, folder=tmp_path)
    assert plus.sha256 == alone.sha256
    assert torch.equal(plus.state["alpha"], alone.state["alpha"])


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_gap_goes_to_zero(workers: int, tmp_path: Path):
    overrides = ("algorithm=cocoa_plus", *SMALL, "run.epochs=80", f"cluster.workers={workers}")
    run = train(*overrides, folder=tmp_path)
    gaps = [row["duality_gap"] for row in run.notes.rows]
    assert min(gaps) >= 0
    assert gaps[-1] < 1e-5 < gaps[0]
    assert gaps[19] < 0.5 * gaps[9] < 0.25 * gaps[0]


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize(("workers", "gamma"), [(1, 1.0), (3, 1.0), (3, 1 / 3)])
def test_the_gap_of_other_losses_goes_to_zero(model: str, workers: int, gamma: float):
    small = Small(60, 5, workers, 20, model=MODELS[model]())
    methods = started(small, workers, weight_decay=0.1, gamma=gamma)
    objective = Objective(small.model, Split(small.x, small.targets), 0.1, methods[0].duals)
    rows = []
    for number in range(61):
        if number % 10 == 0:
            rows.append(objective(methods[0].w, [method.state() for method in methods]))
        advance(small, methods, number)
    assert all(row["duality_gap"] >= row["suboptimality"] - 1e-12 for row in rows)
    assert all(row["suboptimality"] > -1e-12 for row in rows)
    assert rows[-1]["duality_gap"] < 1e-5 < rows[0]["duality_gap"]


@pytest.mark.slow
def test_processes_reach_the_simulated_weights(tmp_path: Path):
    overrides = ("algorithm=cocoa_plus", *SMALL, "run.epochs=2", "cluster.workers=2")
    code, real = run_in(tmp_path / "real", *overrides, "cluster=processes")
    assert code == 0
    simulated = train(*overrides, folder=tmp_path)
    assert real["weights_sha256"] == simulated.sha256
    assert real["duality_gap"] == pytest.approx(simulated.notes.rows[-1]["duality_gap"], rel=1e-6)


@pytest.mark.parametrize("gamma", [0, 1.5])
def test_wrong_gammas_are_refused(gamma: float):
    with pytest.raises(ValueError, match=rf"^algorithm.gamma={gamma}: .*; allowed: "):
        CoCoAPlus(gamma=gamma)


@pytest.mark.parametrize("sigma", [0, 0.49, -1, float("inf"), True])
def test_sigma_below_gamma_is_refused(sigma: float):
    with pytest.raises(ValueError, match=rf"^algorithm.sigma={sigma}: .*; allowed: sigma >= 0.5"):
        CoCoAPlus(gamma=0.5, sigma=sigma)
    assert CoCoAPlus(gamma=0.5, sigma=0.5).sigma == 0.5


def test_sdca_is_for_one_worker():
    assert SDCA.max_workers == 1
