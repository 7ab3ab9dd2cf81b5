"""The step of principal component analysis by hand, and what it refuses."""

import pytest
import torch

from models.pca_step import PCAStep

D = 5


def test_one_sample_by_hand():
    """μ − λ = 1.5, b = (1, 2), w = (1, -1) and x = (0.6, 0.8), so z = -0.2."""
    step = PCAStep(shape=(2,), classes=1, mu=2.0, weight_decay=0.5)
    step.b.copy_(torch.tensor([1.0, 2.0]))
    x, w, targets = torch.tensor([[0.6, 0.8]]), torch.tensor([1.0, -1.0]), torch.zeros(1, dtype=torch.int64)
    z = x @ w
    # 0.75 · 2 − (1 − 2) − 0.2²/2
    torch.testing.assert_close(step.losses(w, z, targets), torch.tensor([2.48]))
    # 1.5 w − b + 0.2 x
    torch.testing.assert_close(step.gradients(w, x, z, targets), torch.tensor([[0.62, -3.34]]))
    # Eigenvalues of the Hessian: 1.5, and 1.5 − 1 along x.
    torch.testing.assert_close(step.curvatures(x), torch.tensor([1.5]))
    torch.testing.assert_close(step.curvatures(2 * x), torch.tensor([2.5]))
    q, c, constant = step.quadratic(x, targets)
    torch.testing.assert_close(q, torch.tensor([[1.14, -0.48], [-0.48, 0.86]]))
    assert (c.tolist(), float(constant)) == ([1.0, 2.0], 0.0)


def test_nothing_is_guessed():
    step = PCAStep(shape=(2,), classes=3)
    assert int(step.errors(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))) == 0
    with pytest.raises(NotImplementedError, match="not a multiple"):
        step.slopes(torch.zeros(1), torch.zeros(1))
    with pytest.raises(NotImplementedError, match="no conjugate"):
        step.conjugates(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize(("option", "value"), [("mu", -1), ("weight_decay", float("nan")), ("seed", -1), ("seed", 0.5)])
def test_wrong_options_are_refused(option: str, value: float):
    with pytest.raises(ValueError, match=rf"^model.{option}={value}: .*; allowed: "):
        PCAStep(shape=(D,), classes=1, **{option: value})  # type: ignore[arg-type]


def test_b_has_a_seed_of_its_own():
    first, second = (PCAStep(shape=(D,), classes=1, seed=seed).get_buffer("b") for seed in (0, 1))
    torch.manual_seed(99)
    again = PCAStep(shape=(D,), classes=1).get_buffer("b")
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
