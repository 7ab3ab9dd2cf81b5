"""Beside NumPy's own linear algebra, in float64."""

from typing import Any

import numpy as np
import pytest
import torch

from models.ridge import Ridge
from runner.gradients import objective
from runner.gradients.objective import Objective

N, D, DECAY = 20, 4, 0.1


class Samples:
    """Twenty samples of four features and two classes."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(N, D, generator=generator)
        self.targets = (self.x[:, 0] + torch.randn(N, generator=generator) > 0).long()

    def __len__(self) -> int:
        return N

    def batch(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[ids], self.targets[ids]


def measured(w: torch.Tensor, decay: float = DECAY, alpha: torch.Tensor | None = None) -> dict[str, float]:
    return Objective(Ridge(shape=(D,), classes=2), Samples(), decay, lambda states: alpha)(w, [])


def arrays() -> tuple[np.ndarray, np.ndarray]:
    samples = Samples()
    return samples.x.double().numpy(), 2.0 * samples.targets.double().numpy() - 1


def primal(w: np.ndarray, decay: float) -> float:
    x, y = arrays()
    return float(np.mean((x @ w - y) ** 2) / 2 + decay / 2 * w @ w)


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("chunk", [3, 8192])
def test_primal_is_the_mean_loss(decay: float, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objective, "CHUNK", chunk)
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    assert measured(w, decay)["primal"] == pytest.approx(primal(w.double().numpy(), decay), rel=1e-12)


def test_suboptimality_is_above_the_solved_minimum():
    x, y = arrays()
    best = np.linalg.solve(x.T @ x / N + DECAY * np.eye(D), x.T @ y / N)
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    away = primal(w.double().numpy(), DECAY) - primal(best, DECAY)
    assert measured(w)["suboptimality"] == pytest.approx(away, rel=1e-9)
    # Exact however small: a difference of two objectives would drown in rounding.
    close = torch.from_numpy(best + 1e-9)
    expected = 0.5e-18 * np.ones(D) @ (x.T @ x / N + DECAY * np.eye(D)) @ np.ones(D)
    assert measured(close)["suboptimality"] == pytest.approx(expected, rel=1e-5)


def test_flat_objectives_have_no_optimum():
    class Flat(Samples):
        def __init__(self) -> None:
            super().__init__()
            self.x[:, 1] = 0

    found = Objective(Ridge(shape=(D,), classes=2), Flat(), 0.0, lambda states: None)(torch.zeros(D), [])
    assert set(found) == {"primal"}


def test_gap_is_primal_minus_dual():
    """D(α) = −(1/n) Σ (½α² − α y) − (λ/2)‖u‖² with u = (1/λn) Σ α_i x_i."""
    x, y = arrays()
    alpha = torch.linspace(-1, 1, N)
    a = alpha.double().numpy()
    u = a @ x / (DECAY * N)
    dual = -np.mean(a**2 / 2 - a * y) - DECAY / 2 * u @ u
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    found = measured(w, alpha=alpha)
    assert found["dual"] == pytest.approx(dual, rel=1e-9)
    assert found["duality_gap"] == pytest.approx(primal(w.double().numpy(), DECAY) - dual, rel=1e-9)


def test_gap_vanishes_at_the_optimum():
    x, y = arrays()
    best = np.linalg.solve(x.T @ x / N + DECAY * np.eye(D), x.T @ y / N)
    # There α_i = −φ_i'(x_iᵀw*).
    found = measured(torch.from_numpy(best), alpha=torch.from_numpy(y - x @ best))
    assert found["duality_gap"] == pytest.approx(0, abs=1e-12)


def test_states_reach_the_duals():
    seen: list[Any] = []
    states = [{"alpha": torch.zeros(N)}]
    Objective(Ridge(shape=(D,), classes=2), Samples(), DECAY, seen.append)(torch.zeros(D), states)
    assert seen == [states]
