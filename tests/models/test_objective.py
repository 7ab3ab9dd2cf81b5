"""Ridge regression and the PCA step: what they say of single samples is what autograd says of their loss."""

import pytest
import torch

from models.pca_step import PCAStep
from models.ridge import Ridge

D = 5


def models() -> list[Ridge | PCAStep]:
    return [Ridge(shape=(D,), classes=2), PCAStep(shape=(D,), classes=1, mu=0.7, weight_decay=0.1)]


@pytest.fixture(params=[0, 1], ids=["ridge", "pca_step"])
def model(request: pytest.FixtureRequest) -> Ridge | PCAStep:
    return models()[request.param].double()


def samples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, D, generator=generator, dtype=torch.float64)
    w = torch.randn(D, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 1, 0, 1, 0, 0]), w


def test_gradients_of_single_samples_are_autograds(model: Ridge | PCAStep):
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


def test_quadratic_form_sums_losses(model: Ridge | PCAStep):
    x, targets, w = samples()
    q, c, constant = model.quadratic(x, targets)
    torch.testing.assert_close(w @ q @ w / 2 - c @ w + constant, model.losses(w, x @ w, targets).sum())


def test_curvatures_are_the_largest_of_the_hessian(model: Ridge | PCAStep):
    x, targets, w = samples()
    for i in range(len(x)):
        hessian = torch.autograd.functional.hessian(
            lambda v, i=i: model.losses(v, x[i : i + 1] @ v, targets[i : i + 1]).sum(), w
        )
        assert isinstance(hessian, torch.Tensor)
        torch.testing.assert_close(model.curvatures(x)[i], torch.linalg.eigvalsh(hessian).abs().max())
