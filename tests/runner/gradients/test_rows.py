import pytest
import torch

from models.pca_step import PCAStep
from models.ridge import Ridge
from runner.gradients.rows import ObjectiveRows


def rows(totals: torch.Tensor | None = None) -> tuple[ObjectiveRows, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, targets = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0])
    return ObjectiveRows(Ridge(shape=(4,), classes=2), x, targets, totals), x, targets


def test_gradients_are_those_of_single_samples():
    asked, x, targets = rows()
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    for i, gradient in enumerate(asked.gradients(w)):
        leaf = w.clone().requires_grad_()
        ((x[i] @ leaf - (2.0 * targets[i] - 1)).square() / 2).backward()
        torch.testing.assert_close(gradient, leaf.grad)


def test_slopes_times_samples_are_gradients():
    asked, x, _ = rows()
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    torch.testing.assert_close(asked.slopes(w)[:, None] * x, asked.gradients(w))


def test_curvatures_bound_the_hessian():
    asked, x, _ = rows()
    largest = [torch.linalg.eigvalsh(torch.outer(row, row)).max() for row in x]
    torch.testing.assert_close(asked.curvatures(), torch.stack(largest))


def test_questions_count_losses_errors_samples():
    totals = torch.zeros(3, dtype=torch.float64)
    asked, x, targets = rows(totals)
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    z, signs = x @ w, 2.0 * targets - 1
    asked.gradients(w)
    expected = [float((z - signs).square().sum() / 2), float(((z > 0) != (targets == 1)).sum()), 6.0]
    assert totals.tolist() == pytest.approx(expected)
    asked.slopes(w)
    assert totals.tolist() == pytest.approx([2 * value for value in expected])
    asked.curvatures()
    assert totals[2] == 12, "a bound evaluates no sample"


def test_matrix_gradients_are_autograds():
    """A φ_i that is no function of x_iᵀw alone."""
    generator = torch.Generator().manual_seed(1)
    module, x = PCAStep(shape=(3,), classes=1), torch.randn(5, 3, generator=generator)
    w, targets = torch.tensor([0.2, -0.4, 1.0]), torch.zeros(5, dtype=torch.int64)
    asked = ObjectiveRows(module, x, targets, None)
    for i, gradient in enumerate(asked.gradients(w)):
        leaf = w.clone().requires_grad_()
        module.losses(leaf, x[i : i + 1] @ leaf, targets[i : i + 1]).sum().backward()
        torch.testing.assert_close(gradient, leaf.grad)
