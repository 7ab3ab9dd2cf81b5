import pytest
import torch

from algorithms.base import Batch
from data.digits import Digits
from models.mlp import MLP
from runner.gradients.directions import Directions
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica

PIECES = ((0, 2), (2, 5))


def test_sigma_is_a_ratio_of_sums():
    """Two iterations by hand: σ_k = Σ ⟨g, d⟩ / Σ ‖g‖², which is not the mean of the iterations' ratios."""
    sums = Directions(2, torch.device("cpu"))
    sums.add(torch.tensor([1.0, 2, 3, 0, 0]), [torch.tensor([2.0, 0]), torch.tensor([1.0, 1, 1])], PIECES)
    sums.add(torch.tensor([0.0, 1, 1, 1, 1]), [torch.tensor([5.0, 3]), torch.tensor([-1.0, 0, 0])], PIECES)
    assert sums.take() == pytest.approx({"module1": (2 + 3) / (5 + 1), "module2": (3 - 1) / (9 + 3)})


def test_each_stretch_starts_anew():
    sums = Directions(1, torch.device("cpu"))
    sums.add(torch.ones(2), [torch.ones(2)], [(0, 2)])
    assert sums.take() == {"module1": 1.0}
    sums.add(torch.ones(2), [-torch.ones(2)], [(0, 2)])
    assert sums.take() == {"module1": -1.0}


def test_resting_modules_count_as_zero():
    sums = Directions(1, torch.device("cpu"))
    sums.add(torch.ones(2), [None], [(0, 2)])
    sums.add(torch.ones(2), [torch.ones(2)], [(0, 2)])
    assert sums.take() == {"module1": 0.5}


def test_sums_survive_a_checkpoint():
    first, second = Directions(1, torch.device("cpu")), Directions(1, torch.device("cpu"))
    first.add(torch.ones(2), [torch.ones(2)], [(0, 2)])
    second.load_state_dict(first.state_dict())
    second.add(torch.ones(2), [None], [(0, 2)])
    assert second.take() == {"module1": 0.5}


def test_exact_gradients_are_own_and_uncounted():
    digits = Digits(limit_train=8, limit_test=4)
    torch.manual_seed(0)
    oracle = NetworkOracle(Replica(MLP(shape=(1, 8, 8), classes=10, widths=[5])), digits.train, seed=0)
    batch = Batch(0, 0, torch.arange(8))
    sums = Directions(1, oracle.device)
    exact = sums.exact(oracle, batch)
    kept = exact.clone()
    assert not oracle.totals.any(), "its loss is none of the training's"
    assert torch.equal(oracle.gradient(oracle.replica.weights, batch), kept)
    oracle.gradient(oracle.replica.weights, batch._replace(ids=batch.ids[:2]))
    assert torch.equal(exact, kept), "the next gradient is computed elsewhere"
