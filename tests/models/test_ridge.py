"""Ridge regression by hand: one sample, both classes."""

import torch

from models.ridge import Ridge

D = 5


def test_one_sample_by_hand():
    """w = (1, -2) and x = (3, 1), so z = 1; the second class is met exactly, the first is missed by 2."""
    ridge = Ridge(shape=(2,), classes=2)
    x, w, targets = torch.tensor([[3.0, 1.0], [3.0, 1.0]]), torch.tensor([1.0, -2.0]), torch.tensor([0, 1])
    z = x @ w
    assert ridge.losses(w, z, targets).tolist() == [2.0, 0.0]
    assert ridge.slopes(z, targets).tolist() == [2.0, 0.0]
    assert ridge.gradients(w, x, z, targets).tolist() == [[6.0, 2.0], [0.0, 0.0]]
    assert ridge.curvatures(x).tolist() == [10.0, 10.0]
    assert ridge.conjugates(torch.tensor([0.5, 0.5]), targets).tolist() == [0.625, -0.375]
    q, c, constant = ridge.quadratic(x[:1], targets[:1])
    assert (q.tolist(), c.tolist(), float(constant)) == ([[9.0, 3.0], [3.0, 1.0]], [-3.0, -1.0], 0.5)


def test_ridges_conjugate_is_the_supremum():
    ridge = Ridge(shape=(D,), classes=2)
    alpha, targets = torch.tensor([0.3, -1.2], dtype=torch.float64), torch.tensor([1, 0])
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    for i, y in enumerate((1.0, -1.0)):
        supremum = (-alpha[i] * z - (z - y).square() / 2).max()
        torch.testing.assert_close(ridge.conjugates(alpha, targets)[i], supremum, atol=1e-8, rtol=0)


def test_numbers_by_hand():
    """z = 1 with targets of -0.5 and 3.25."""
    ridge = Ridge(shape=(2,), classes=0)
    x, w, targets = torch.tensor([[3.0, 1.0], [3.0, 1.0]]), torch.tensor([1.0, -2.0]), torch.tensor([-0.5, 3.25])
    z = x @ w
    assert ridge.losses(w, z, targets).tolist() == [1.125, 2.53125]
    assert ridge.slopes(z, targets).tolist() == [1.5, -2.25]
    assert ridge.gradients(w, x, z, targets).tolist() == [[4.5, 1.5], [-6.75, -2.25]]
    assert ridge.conjugates(torch.tensor([0.5, 0.5]), targets).tolist() == [0.375, -1.5]
    q, c, constant = ridge.quadratic(x, targets)
    assert (q.tolist(), c.tolist(), float(constant)) == ([[18.0, 6.0], [6.0, 2.0]], [8.25, 2.75], 5.40625)
    # (y − z + qα)/(1 + q)
    assert ridge.dual_step(3.25, 1.0, 0.5, 1.5) == 1.2
    assert int(ridge.errors(z[:, None], targets)) == 0
    assert not ridge.classifies
    assert Ridge(shape=(2,), classes=2).classifies
