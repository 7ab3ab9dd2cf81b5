"""P(w) and its distance to P*, beside NumPy's and SciPy's own, in float64."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, sparse

from data.sparse import SparseSplit
from models.logistic import Logistic
from models.objective import RowObjective
from models.pca_step import PCAStep
from models.ridge import Ridge
from models.smoothed_hinge import SmoothedHinge
from runner.gradients import all_samples, minimum, primal
from runner.gradients.all_samples import AllSamples
from runner.gradients.primal import QuadraticPrimal, SummedPrimal, primal_of
from tests.runner.gradients.test_objective import DECAY, D, N, Samples, arrays

W = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
LOSSES = [Logistic(shape=(D,), classes=2), SmoothedHinge(shape=(D,), classes=2, gamma=0.5)]


def measured(
    w: torch.Tensor, model: RowObjective | None = None, decay: float = DECAY, split: Any = None
) -> tuple[float, float | None]:
    model = Ridge(shape=(D,), classes=2) if model is None else model
    with torch.no_grad():
        return primal_of(model, AllSamples(split or Samples(), D), decay)(w)


def ridge(w: np.ndarray, decay: float = DECAY) -> float:
    x, y = arrays()
    return float(np.mean((x @ w - y) ** 2) / 2 + decay / 2 * w @ w)


def other(model: RowObjective, w: np.ndarray, decay: float) -> float:
    x, y = arrays()
    m = y * (x @ w)
    hinge = np.where(m >= 1, 0, np.where(m <= 0.5, 1 - m - 0.25, (1 - m) ** 2))
    return float(np.mean(np.logaddexp(0, -m) if isinstance(model, Logistic) else hinge) + decay / 2 * w @ w)


@pytest.fixture(params=["matrix", "passes"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "passes":
        monkeypatch.setattr(primal, "MATRIX_BYTES", 0)
    return request.param


def test_a_matrix_is_used_where_it_fits(form: str):
    found = primal_of(Ridge(shape=(D,), classes=2), AllSamples(Samples(), D), DECAY)
    assert type(found) is (QuadraticPrimal if form == "matrix" else SummedPrimal)
    assert type(primal_of(LOSSES[0], AllSamples(Samples(), D), DECAY)) is SummedPrimal


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("chunk", [3, 8192])
def test_primal_is_the_mean_loss(form: str, decay: float, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(all_samples, "CHUNK", chunk)
    assert measured(W, decay=decay)[0] == pytest.approx(ridge(W.numpy(), decay), rel=1e-12)
    for model in LOSSES:
        assert measured(W, model, decay)[0] == pytest.approx(other(model, W.numpy(), decay), rel=1e-12)


def test_suboptimality_is_above_the_solved_minimum(form: str):
    x, y = arrays()
    best = np.linalg.solve(x.T @ x / N + DECAY * np.eye(D), x.T @ y / N)
    away = ridge(W.numpy()) - ridge(best)
    assert measured(W)[1] == pytest.approx(away, rel=1e-9)
    if form == "matrix":
        # Exact however small: a difference of two objectives would drown in rounding.
        close = torch.from_numpy(best + 1e-9)
        expected = 0.5e-18 * np.ones(D) @ (x.T @ x / N + DECAY * np.eye(D)) @ np.ones(D)
        assert measured(close)[1] == pytest.approx(expected, rel=1e-5)
    else:
        assert measured(torch.from_numpy(best))[1] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("decay", [1e-4, DECAY])
@pytest.mark.parametrize("model", LOSSES, ids=["logistic", "smoothed_hinge"])
def test_minimum_of_other_losses_is_scipys(model: RowObjective, decay: float):
    """Of a derivative-free method: it comes to within 1e-9 by itself."""
    options = {"xatol": 1e-10, "fatol": 1e-16, "maxfev": 20_000, "maxiter": 20_000, "adaptive": True}
    best = optimize.minimize(lambda w: other(model, w, decay), np.zeros(D), method="Nelder-Mead", options=options)
    found = measured(torch.from_numpy(best.x), model, decay)[1]
    assert found is not None
    assert -1e-15 <= found < 1e-9
    expected = other(model, W.numpy(), decay) - best.fun
    assert measured(W, model, decay)[1] == pytest.approx(expected, abs=2e-9)


@pytest.mark.parametrize("model", LOSSES, ids=["logistic", "smoothed_hinge"])
def test_compressed_rows_give_the_same_minimum(model: RowObjective):
    samples = Samples()
    split = SparseSplit(sparse.csr_matrix(samples.x.numpy()), samples.targets)
    found, expected = measured(W, model, split=split), measured(W, model)
    assert found == pytest.approx(expected, rel=1e-12)


def test_flat_objectives_have_no_optimum(form: str):
    class Flat(Samples):
        def __init__(self) -> None:
            super().__init__()
            self.x[:, 1] = 0

    assert measured(W, decay=0.0, split=Flat())[1] is None


@pytest.mark.parametrize("model", LOSSES, ids=["logistic", "smoothed_hinge"])
def test_no_minimum_is_searched_without_decay(model: RowObjective):
    """Classes that can be separated push w to infinity."""
    assert measured(W, model, decay=0.0)[1] is None


def test_no_minimum_is_searched_of_what_may_not_be_convex(form: str):
    step = PCAStep(shape=(D,), classes=1, mu=100.0, weight_decay=DECAY)
    assert (measured(W, step)[1] is None) == (form == "passes")


def test_no_minimum_is_searched_in_large_data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(primal, "SEARCHED_BYTES", 7)
    samples = Samples()
    split = SparseSplit(sparse.csr_matrix(samples.x.numpy()), samples.targets)
    assert measured(W, LOSSES[0], split=split)[1] is None


def test_minimum_that_is_not_found_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(minimum, "MOST_STEPS", 0)
    objective = primal_of(LOSSES[0], AllSamples(Samples(), D), DECAY)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        assert [objective(W)[1], objective(W)[1]] == [None, None]
    assert caplog.messages == ["the minimum of the objective was not found to 1e-15 of it: no suboptimality"]
