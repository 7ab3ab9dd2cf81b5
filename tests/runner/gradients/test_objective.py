"""Beside NumPy's own linear algebra, in float64."""

from typing import Any

import numpy as np
import pytest
import torch

from models.logistic import Logistic
from models.ridge import Ridge
from models.scalar_loss import ScalarLoss
from models.smoothed_hinge import SmoothedHinge
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


@pytest.mark.parametrize("model", [Logistic(shape=(D,), classes=2), SmoothedHinge(shape=(D,), classes=2, gamma=0.5)])
def test_gap_of_other_losses_is_of_feasible_duals(model: ScalarLoss):
    """D(α) at the nearest α of the domain, b = α y in [0, 1], by NumPy."""
    x, y = arrays()
    alpha = torch.linspace(-1.5, 1.5, N)
    b = np.clip(alpha.double().numpy() * y, 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.nan_to_num(b * np.log(b)) + np.nan_to_num((1 - b) * np.log(1 - b))
    conjugates = entropy if isinstance(model, Logistic) else 0.25 * b**2 - b
    u = (b * y) @ x / (DECAY * N)
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    margins = y * (x @ w.double().numpy())
    hinge = np.where(margins >= 1, 0, np.where(margins <= 0.5, 1 - margins - 0.25, (1 - margins) ** 2))
    losses = np.logaddexp(0, -margins) if isinstance(model, Logistic) else hinge
    found = Objective(model, Samples(), DECAY, lambda states: alpha)(w, [])
    assert found["primal"] == pytest.approx(np.mean(losses) + DECAY / 2 * float(w @ w), rel=1e-12)
    assert found["dual"] == pytest.approx(-np.mean(conjugates) - DECAY / 2 * u @ u, rel=1e-12)
    assert found["duality_gap"] == found["primal"] - found["dual"] > 0
