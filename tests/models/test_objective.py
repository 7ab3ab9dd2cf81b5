"""Objectives of one weight a feature: what they say of single samples is what autograd says of their loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.logistic import Logistic
from models.objective import RowObjective
from models.pca_step import PCAStep
from models.ridge import Ridge
from models.smoothed_hinge import SmoothedHinge

D = 5


MODELS: dict[str, Callable[[], RowObjective]] = {
    "ridge": lambda: Ridge(shape=(D,), classes=2),
    "logistic": lambda: Logistic(shape=(D,), classes=2),
    "smoothed_hinge": lambda: SmoothedHinge(shape=(D,), classes=2, gamma=0.7),
    "pca_step": lambda: PCAStep(shape=(D,), classes=1, mu=0.7, weight_decay=0.1),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> RowObjective:
    return MODELS[request.param]().double()


def samples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, D, generator=generator, dtype=torch.float64)
    w = torch.randn(D, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 1, 0, 1, 0, 0]), w


def test_gradients_of_single_samples_are_autograds(model: RowObjective):
    x, targets, w = samples()
    assert not model.w.any(), "it starts at zero"
    with torch.no_grad():
        model.w.copy_(w)
    found = model.gradients(w, x, x @ w, targets)
    for i in range(len(x)):
        model.zero_grad()
        loss = model.loss(model(x[i : i + 1]), targets[i : i + 1])
        loss.backward()
        [weight] = list(model.parameters())
        assert weight.grad is not None
        torch.testing.assert_close(found[i], weight.grad[0])
        torch.testing.assert_close(model.losses(w, x @ w, targets)[i], loss.detach())
    if model.scalar:
        torch.testing.assert_close(model.slopes(x @ w, targets)[:, None] * x, found)


@pytest.mark.parametrize("option", ["ridge", "pca_step"])
def test_quadratic_form_sums_losses(option: str):
    model: Any = MODELS[option]().double()
    x, targets, w = samples()
    q, c, constant = model.quadratic(x, targets)
    torch.testing.assert_close(w @ q @ w / 2 - c @ w + constant, model.losses(w, x @ w, targets).sum())


def test_curvatures_are_the_largest_of_the_hessian(model: RowObjective):
    """At the outputs where φ_i bends most: 0 for the logistic loss, a margin inside the hinge's quadratic piece."""
    x, targets, w = samples()
    for i in range(len(x)):
        # So that x_iᵀw is a margin of 0.6 for the hinge, which is quadratic from 0.3 to 1, and 0 for the logistic loss.
        y = 2.0 * float(targets[i]) - 1
        wanted = {Logistic: 0.0, SmoothedHinge: 0.6 * y}.get(type(model), float(x[i] @ w))
        at = w + x[i] * (wanted - x[i] @ w) / (x[i] @ x[i])
        hessian = torch.autograd.functional.hessian(
            lambda v, i=i: model.losses(v, x[i : i + 1] @ v, targets[i : i + 1]).sum(), at
        )
        assert isinstance(hessian, torch.Tensor)
        torch.testing.assert_close(model.curvatures(x)[i], torch.linalg.eigvalsh(hessian).abs().max())


def test_losses_bend_no_more_than_curvatures(model: RowObjective):
    x, targets, _ = samples()
    for scale in (0.01, 0.3, 3.0, 100.0):
        w = scale * samples()[2]
        for i in range(len(x)):
            away = w + 1e-3 * torch.ones(D, dtype=torch.float64)
            pair = [model.gradients(v, x[i : i + 1], x[i : i + 1] @ v, targets[i : i + 1])[0] for v in (w, away)]
            assert (pair[1] - pair[0]).norm() <= model.curvatures(x)[i] * (away - w).norm() * (1 + 1e-9)
