"""Logistic regression by hand, and its dual step to the last digits, against high precision."""

from decimal import Decimal, localcontext

import pytest
import torch

from models.logistic import Logistic


def test_one_sample_by_hand():
    """z = 0: log 2, and a slope of half a class."""
    model = Logistic(shape=(2,), classes=2)
    x, w, targets = torch.tensor([[3.0, 1.0], [3.0, 1.0]]), torch.tensor([1.0, -3.0]), torch.tensor([0, 1])
    z = x @ w
    torch.testing.assert_close(model.losses(w, z, targets), torch.tensor([0.6931472, 0.6931472]))
    assert model.slopes(z, targets).tolist() == [0.5, -0.5]
    assert model.curvatures(x).tolist() == [2.5, 2.5]
    conjugates = model.conjugates(torch.tensor([-0.5, 0.5]), targets)
    torch.testing.assert_close(conjugates, torch.tensor([-0.6931472, -0.6931472]))


def test_large_margins_lose_no_digits():
    model = Logistic(shape=(2,), classes=2)
    z = torch.tensor([30.0, -21.0, 800.0, -800.0], dtype=torch.float64)
    found = model.losses(torch.zeros(2), z, torch.ones(4, dtype=torch.int64))
    expected = torch.tensor([9.357622968839737e-14, 21.000000000758256, 0.0, 800.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def _exact(margin: float, b: float, curvature: float) -> Decimal:
    """Return the new b, by bisection with 50 digits."""
    m, old, q = Decimal(margin), Decimal(b), Decimal(curvature)
    low, high = -m - q * (1 - old), -m + q * old
    for _ in range(180):
        t = (low + high) / 2
        if t + m + q * (1 / (1 + (-t).exp()) - old) > 0:
            high = t
        else:
            low = t
    return 1 / (1 + (-low).exp())


@pytest.mark.parametrize("curvature", [0.0, 0.5, 30.0, 1e3, 1e5])
def test_dual_steps_have_every_digit(curvature: float):
    model = Logistic(shape=(2,), classes=2)
    with localcontext() as context:
        context.prec = 50
        for margin, b in ((0.0, 0.0), (25.0, 0.0), (25.0, 1.0), (-25.0, 0.3), (3.0, 1 - 1e-9), (-0.1, 1e-12)):
            expected = _exact(margin, b, curvature)
            found = Decimal(model.dual_step(1, margin, b, curvature))
            assert abs(found / expected - 1) < Decimal("2e-14"), (margin, b)
            # The other class is the mirror image.
            assert model.dual_step(0, -margin, -b, curvature) == -float(found)
