"""Convex losses of one output: duality against NumPy and SciPy, one by one for each loss."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import optimize

from models.logistic import Logistic
from models.ridge import Ridge
from models.scalar_loss import ScalarLoss
from models.smoothed_hinge import SmoothedHinge
from tests.models.test_configs import CONFIGS

D = 5


def ridge_loss(z: Any, y: float) -> Any:
    return 0.5 * (z - y) ** 2


def logistic_loss(z: Any, y: float) -> Any:
    return np.logaddexp(0, -y * z)


def hinge_loss(z: Any, y: float, gamma: float = 0.3) -> Any:
    m = y * z
    return np.where(m >= 1, 0, np.where(m <= 1 - gamma, 1 - m - gamma / 2, (1 - m) ** 2 / (2 * gamma)))


LOSSES: dict[str, tuple[Callable[[], ScalarLoss], Callable[[Any, float], Any]]] = {
    "ridge": (lambda: Ridge(shape=(D,), classes=2), ridge_loss),
    "logistic": (lambda: Logistic(shape=(D,), classes=2), logistic_loss),
    "smoothed_hinge": (lambda: SmoothedHinge(shape=(D,), classes=2, gamma=0.3), hinge_loss),
}
CLASSES = torch.tensor([0, 1])
Z = np.linspace(-6, 6, 241)


@pytest.fixture(params=list(LOSSES))
def loss(request: pytest.FixtureRequest) -> tuple[ScalarLoss, Callable[[Any, float], Any]]:
    build, formula = LOSSES[request.param]
    return build().double(), formula


def duals(model: ScalarLoss, y: float) -> np.ndarray:
    """Return α in the domain of φ*(−·), its ends included."""
    return np.linspace(-3, 3, 61) if isinstance(model, Ridge) else y * np.linspace(0, 1, 41)


def of(model: ScalarLoss, z: np.ndarray, target: int) -> torch.Tensor:
    return model.losses(torch.zeros(D), torch.from_numpy(z), torch.full((len(z),), target))


def conjugates(model: ScalarLoss, alpha: np.ndarray, target: int) -> np.ndarray:
    return model.conjugates(torch.from_numpy(alpha), torch.full((len(alpha),), target)).numpy()


@pytest.mark.parametrize("target", [0, 1])
def test_losses_are_those_of_the_formula(loss, target: int):
    model, formula = loss
    np.testing.assert_allclose(of(model, Z, target).numpy(), formula(Z, 2 * target - 1), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("target", [0, 1])
def test_slopes_are_differences_of_losses(loss, target: int):
    model, formula = loss
    y, h = 2 * target - 1, 1e-6
    z = Z + 0.0123  # no kink of the second derivative within h
    expected = (formula(z + h, y) - formula(z - h, y)) / (2 * h)
    found = model.slopes(torch.from_numpy(z), torch.full((len(z),), target))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("target", [0, 1])
def test_conjugates_are_suprema(loss, target: int):
    """φ*(−a) = sup_z −az − φ(z), by SciPy; where the supremum is at infinity, the ends, it is approached."""
    model, formula = loss
    y = 2 * target - 1
    for a, found in zip(duals(model, y), conjugates(model, duals(model, y), target), strict=True):
        best: Any = optimize.minimize_scalar(
            lambda z, a=a: float(a * z + formula(z, y)), bounds=(-40, 40), method="bounded"
        )
        assert found == pytest.approx(-best.fun, abs=1e-5)


@pytest.mark.parametrize("target", [0, 1])
def test_fenchel_young_inequality_holds(loss, target: int):
    """φ(z) + φ*(−a) >= −az, with equality for a = −φ'(z)."""
    model, formula = loss
    y = 2 * target - 1
    alpha = duals(model, y)
    sums = formula(Z[:, None], y) + conjugates(model, alpha, target)[None, :] + Z[:, None] * alpha[None, :]
    assert sums.min() >= -1e-14
    tight = -model.slopes(torch.from_numpy(Z), torch.full((len(Z),), target)).numpy()
    at = formula(Z, y) + conjugates(model, tight, target) + Z * tight
    np.testing.assert_allclose(at, 0, atol=1e-14)


@pytest.mark.parametrize("option", ["logistic", "smoothed_hinge"])
def test_conjugates_are_infinite_outside(option: str):
    model = LOSSES[option][0]()
    for target, inside in ((0, -1.0), (1, 1.0)):
        alpha = torch.tensor([-0.1, 1.1, 0.0, 1.0]) * inside
        found = model.conjugates(alpha, torch.full((4,), target))
        assert found.isinf().tolist() == [True, True, False, False]
        nearest = model.feasible(alpha, torch.full((4,), target))
        assert (nearest * inside).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_ridge_has_every_dual_variable():
    alpha = torch.tensor([-7.0, 7.0])
    assert LOSSES["ridge"][0]().feasible(alpha, CLASSES) is alpha


@pytest.mark.parametrize("curvature", [0.0, 1e-3, 1.0, 50.0, 1e5])
@pytest.mark.parametrize("target", [0, 1])
def test_dual_steps_maximise(loss, curvature: float, target: int):
    """By the optimality condition: a = −φ'(z + q (a − α)), which NumPy solves by bisection in float64."""
    model, _ = loss
    y = 2 * target - 1
    for z, alpha in itertools.product((-4.0, -0.5, 0.0, 0.9, 6.0), (0.0, 0.37 * y, 1.0 * y)):
        found = model.dual_step(target, z, alpha, curvature)

        def residue(a: float, z: float = z, alpha: float = alpha) -> float:
            moved = torch.tensor([z + curvature * (a - alpha)], dtype=torch.float64)
            return a + float(model.slopes(moved, torch.tensor([target]))[0])

        # It rises with a, from below 0 to above.
        expected = optimize.brentq(residue, -20, 20, xtol=1e-15)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert math.isfinite(conjugates(model, np.array([found]), target)[0])


def test_wrong_sign_is_an_error(loss):
    model, _ = loss
    outputs = torch.tensor([[0.5], [-0.5], [0.1], [-2.0]])
    assert int(model.errors(outputs, torch.tensor([1, 1, 0, 0]))) == 2
    assert int(model.errors(outputs, torch.tensor([1, 1, 0, 0]), guesses=2)) == 0


@pytest.mark.parametrize("option", list(LOSSES))
def test_two_classes_are_told_apart(option: str):
    config = OmegaConf.load(next(path for path in CONFIGS if path.stem == option))
    assert isinstance(instantiate(config, shape=(D,), classes=2), ScalarLoss)
    with pytest.raises(Exception, match=rf"model={option}: .* the dataset has 3; allowed: 2 classes"):
        instantiate(config, shape=(D,), classes=3)


@pytest.mark.parametrize("option", list(LOSSES))
def test_numbers_are_for_ridge_alone(option: str):
    config = OmegaConf.load(next(path for path in CONFIGS if path.stem == option))
    if option == "ridge":
        assert isinstance(instantiate(config, shape=(D,), classes=0), Ridge)
        return
    with pytest.raises(Exception, match=rf"model={option}: .* the dataset has 0; allowed: 2 classes"):
        instantiate(config, shape=(D,), classes=0)
