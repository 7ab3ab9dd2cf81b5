"""The least value of convex functions whose minimum is known."""

import numpy as np
import pytest

from runner.gradients.minimum import minimum

LAM = 1e-3


def badly_scaled() -> tuple[np.ndarray, np.ndarray]:
    """Return a positive definite matrix with eigenvalues from 1e-3 to 1e4, and a vector."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.standard_normal((12, 12)))[0]
    return basis @ np.diag(np.geomspace(LAM, 1e4, 12)) @ basis.T, random.standard_normal(12)


def test_quadratic_with_large_condition():
    """½wᵀAw − cᵀw has the least value −½cᵀA⁻¹c."""
    a, c = badly_scaled()
    least = minimum(lambda w: (w @ a @ w / 2 - c @ w, a @ w - c), lambda w: lambda v: a @ v, 12, LAM, 1e-14)
    assert least == pytest.approx(-c @ np.linalg.solve(a, c) / 2, rel=1e-9)


def test_piecewise_quadratic():
    """Σ max(0, 1 − w)²/2 and (w − 3)²/2 elsewhere, whose second derivative jumps."""

    def gradient(w: np.ndarray) -> tuple[float, np.ndarray]:
        below = np.maximum(0, w - 1.5)
        return float(np.sum(50 * below**2 + (w - 3) ** 2 / 2)), 100 * below + (w - 3)

    def hessian(w: np.ndarray):
        bend = 100.0 * (w > 1.5) + 1
        return lambda v: bend * v

    # 101 w = 150 + 3
    w = 153 / 101
    expected = 4 * (50 * (w - 1.5) ** 2 + (w - 3) ** 2 / 2)
    assert minimum(gradient, hessian, 4, 1.0, 1e-15) == pytest.approx(expected, rel=1e-14)


def test_result_is_none_if_not_accurate():
    """A gradient that is wrong never gets small enough."""
    assert minimum(lambda w: (1 + w @ w / 2, w + 1), lambda w: lambda v: v * 1e-3, 3, 1.0, 1e-15) is None


def test_same_input_gives_the_same_bits():
    a, c = badly_scaled()

    def once() -> float | None:
        return minimum(lambda w: (w @ a @ w / 2 - c @ w, a @ w - c), lambda w: lambda v: a @ v, 12, LAM, 1e-14)

    assert once() == once()
