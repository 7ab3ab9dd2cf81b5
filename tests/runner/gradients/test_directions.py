import math

import pytest
import torch

from algorithms.base import Batch
from algorithms.pipeline import Features
from data.digits import Digits
from models.mlp import MLP
from runner.gradients.directions import Directions
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.gradients.replica import Replica

DIGITS = Digits(limit_train=16, limit_test=4)
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


def built() -> Partition:
    torch.manual_seed(0)
    oracle = NetworkOracle(Replica(MLP(shape=(1, 8, 8), classes=10, widths=[5])), DIGITS.train, seed=0)
    return Partition(oracle, 2, None, (1, 8, 8), 10)


def features(number: int) -> Features:
    ids = torch.arange(8) + 8 * number
    return Features(number, *DIGITS.train.batch(ids))


def test_exact_gradients_are_own_and_uncounted():
    """Each module's is of the batch that its direction is of; module 1 is an iteration late."""
    cut = built()
    oracle, sums = cut.oracle, Directions(2, torch.device("cpu"))
    exact = sums.exact(cut.stages, [0, 1], features)
    kept = exact.clone()
    assert not oracle.totals.any(), "its loss is none of the training's"
    for stage, piece, number in zip(cut.stages, cut.pieces, (0, 1), strict=True):
        whole = oracle.gradient(oracle.replica.weights, Batch(number, 0, torch.arange(8) + 8 * number))
        torch.testing.assert_close(exact[piece[0] : piece[1]], whole[piece[0] : piece[1]], rtol=1e-6, atol=1e-7)
        assert stage.peak == 0
    cut.stages[0].flatten([torch.ones(5, 64), torch.ones(5)])
    assert torch.equal(exact, kept), "the next gradient is computed elsewhere"


def test_modules_without_a_batch_do_not_count():
    cut, sums = built(), Directions(2, torch.device("cpu"))
    exact = sums.exact(cut.stages, [-1, 0], features)
    low, high = cut.pieces[0][:2]
    assert not exact[low:high].any()
    sums.add(exact, [torch.ones(high - low), exact[high:]], [piece[:2] for piece in cut.pieces])
    found = sums.take()
    assert math.isnan(found["module1"])
    assert found["module2"] == pytest.approx(1.0)
