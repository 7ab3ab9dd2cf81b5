import math

import pytest
import torch
from torch import Tensor

from algorithms.dis_dfsdca import DualFreeWorker
from algorithms.dual_sampling import Residues
from tests.algorithms.ridge_problem import Small


def residues(half: DualFreeWorker, w: Tensor) -> Residues:
    return lambda rows, ids: half.residues(rows, w, half.alpha[ids])


@pytest.mark.parametrize("sampling", ["importance", "adaptive"])
def test_weighted_samples_are_unbiased(sampling: str):
    """Σ p_i s_i κ_i over all samples of the shard is the mean of κ_i, and no sample counts more than twice."""
    small = Small(24, 4, 2, 3, scales=torch.logspace(-1, 0.5, 24))
    half = DualFreeWorker(small.problem, 0.1, sampling)
    half.alpha = torch.linspace(-1, 1, 24)
    w = torch.tensor([0.3, -0.2, 0.5, 0.1])
    shard = small.problem.shard(1)
    pool = torch.arange(shard.start, shard.stop)
    p, s = half.sampler.probabilities(small.oracle, pool, residues(half, w))
    assert math.isclose(float(p.sum()), 1, rel_tol=1e-12)
    assert float(p.max() / p.min()) > 1.5
    assert float(s.max()) < 2
    kappa = half.residues(small.oracle.rows(pool), w, half.alpha[pool])[:, None] * small.x[pool]
    expected = kappa.double().mean(0)
    found = sum(float(p[j]) * float(s[i]) * kappa[j].double() for j, i in enumerate(pool.tolist()))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("sampling", ["importance", "adaptive"])
def test_probabilities_are_the_papers(sampling: str):
    small = Small(24, 4, 2, 3, scales=torch.logspace(-1, 0.5, 24))
    half = DualFreeWorker(small.problem, 0.1, sampling)
    half.alpha = torch.linspace(-1, 1, 24)
    w = torch.tensor([0.3, -0.2, 0.5, 0.1])
    shard = small.problem.shard(1)
    pool = torch.arange(shard.start, shard.stop)
    p, _ = half.sampler.probabilities(small.oracle, pool, residues(half, w))
    x = small.x[pool].double()
    smoothness = (x**2).sum(1)
    kappa = half.residues(small.oracle.rows(pool), w, half.alpha[pool]).double().abs()
    # AdaSDCA's |κ_i| √(‖x_i‖² + λn), κ_i being the multiple of x_i.
    measure = smoothness if sampling == "importance" else kappa * (smoothness + 0.1 * 24).sqrt()
    torch.testing.assert_close(p, (1 / len(pool) + measure / measure.sum()) / 2, rtol=1e-5, atol=0)


def test_samples_without_features_are_drawn_seldom():
    """Their κ x_i is zero, whatever κ is: the uniform half alone draws them, and nothing is no number."""
    small = Small(8, 3, 1, 2, scales=torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1]))
    half = DualFreeWorker(small.problem, 0.1, "adaptive")
    half.alpha = torch.ones(8)
    w = torch.ones(3)
    p, _ = half.sampler.probabilities(small.oracle, torch.arange(8), residues(half, w))
    assert float(p[0]) == pytest.approx(1 / 16)
    assert float(p.sum()) == pytest.approx(1)


def test_draws_follow_the_probabilities():
    small = Small(10, 3, 1, 20_000, scales=torch.linspace(0.1, 2, 10))
    half = DualFreeWorker(small.problem, 0.1, "importance")
    w = torch.zeros(3)
    drawn, s = half.sampler.draw(small.oracle, small.batch(0), residues(half, w))
    p, _ = half.sampler.probabilities(small.oracle, torch.arange(10), residues(half, w))
    found = torch.bincount(drawn, minlength=10) / 20_000
    torch.testing.assert_close(found.double(), p, atol=0.012, rtol=0)
    assert s is not None
    torch.testing.assert_close(s.double(), 1 / (10 * p), atol=1e-6, rtol=1e-5)
