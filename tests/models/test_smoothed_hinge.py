"""The smoothed hinge by hand, on each of its three pieces."""

import pytest
import torch

from models.smoothed_hinge import SmoothedHinge


def test_three_pieces_by_hand():
    """γ = 0.5: margins of 2, 0.75 and −1."""
    model = SmoothedHinge(shape=(1,), classes=2, gamma=0.5)
    z, targets = torch.tensor([2.0, 0.75, -1.0]), torch.tensor([1, 1, 1])
    assert model.losses(torch.zeros(1), z, targets).tolist() == [0.0, 0.0625, 1.75]
    assert model.slopes(z, targets).tolist() == [0.0, -0.5, -1.0]
    assert model.losses(torch.zeros(1), -z, 1 - targets).tolist() == [0.0, 0.0625, 1.75]
    assert model.slopes(-z, 1 - targets).tolist() == [0.0, 0.5, 1.0]
    assert model.curvatures(torch.tensor([[3.0], [0.5]])).tolist() == [18.0, 0.5]
    assert model.conjugates(torch.tensor([0.0, 0.5, 1.0]), targets).tolist() == [0.0, -0.4375, -0.75]


def test_dual_step_by_hand():
    """γ = 0.5, q = 1.5, α = 0.25, z = −2.625: (1 + 2.625 + 0.375)/2 = 2, cut to 1; at z = 1 it is 0.375/2."""
    model = SmoothedHinge(shape=(1,), classes=2, gamma=0.5)
    assert model.dual_step(1, -2.625, 0.25, 1.5) == 1.0
    assert model.dual_step(1, 1.0, 0.25, 1.5) == 0.1875
    assert model.dual_step(1, 9.0, 0.25, 1.5) == 0.0
    assert model.dual_step(0, -1.0, -0.25, 1.5) == -0.1875


def test_small_gamma_is_nearly_the_hinge():
    z = torch.linspace(-3, 3, 50, dtype=torch.float64)
    targets = torch.ones(50, dtype=torch.int64)
    found = SmoothedHinge(shape=(1,), classes=2, gamma=1e-6).losses(torch.zeros(1), z, targets)
    torch.testing.assert_close(found, (1 - z).clamp(min=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gamma", [0, -1, float("inf"), float("nan"), True, "1"])
def test_wrong_gammas_are_refused(gamma: float):
    with pytest.raises(ValueError, match=rf"^model.gamma={gamma}: .*; allowed: numbers above 0"):
        SmoothedHinge(shape=(1,), classes=2, gamma=gamma)
