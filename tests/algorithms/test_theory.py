"""The theory of delay compensation on networks so small that Hessians are exact (float64, all labels enumerated).

Zheng et al., "Asynchronous stochastic gradient descent with delay compensation", ICML 2017, section 3 and appendix A,
and its 2016 preprint, theorems 3.3 and 3.4. Notation: g_y is the gradient of -log sigma_y(x; w), G_y = g_y g_yᵀ, H_y
the Hessian, E the mean over y.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from models.base import Chain
from models.linear import Linear
from models.mlp import MLP

FEATURES = 3


class Problem:
    """A classifier as a function of its flat weights: for one input, loss, gradient and Hessian under every label."""

    def __init__(
        self, classes: int, seed: int, *, net: Callable[..., Chain] = MLP, odds: float | None = None, **options
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.net = net(shape=(FEATURES,), classes=classes, **options).double()
        self.shapes = {name: weight.shape for name, weight in self.net.named_parameters()}
        self.w = torch.randn(sum(shape.numel() for shape in self.shapes.values()), generator=generator).double()
        self.x = torch.randn(FEATURES, generator=generator).double()
        self.generator = generator
        if odds is not None:
            # The classifier's biases come last: that of class 0 sets log(σ_0 / (1 - σ_0)).
            self.w[-classes] += odds - self.probabilities(self.w)[0].logit()

    def losses(self, w: Tensor) -> Tensor:
        """-log sigma_k(x; w) for every label k, [K]."""
        pieces = w.split([shape.numel() for shape in self.shapes.values()])
        weights = {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}
        return -functional_call(self.net, weights, (self.x[None],))[0].log_softmax(dim=0)

    def probabilities(self, w: Tensor) -> Tensor:
        return torch.exp(-self.losses(w))

    def gradients(self, w: Tensor) -> Tensor:
        """g_k for every label, [K, n]."""
        return jacrev(self.losses)(w)

    def direction(self) -> Tensor:
        step = torch.randn(self.w.shape, generator=self.generator).double()
        return step / step.norm()


@dataclass
class Moments:
    """What one problem says of G and H at its weights; with `diagonal` only the diagonals are kept, as [K, n]."""

    p: Tensor
    g: Tensor
    G: Tensor
    H: Tensor

    @classmethod
    def of(cls, problem: Problem, *, diagonal: bool = False) -> "Moments":
        g = problem.gradients(problem.w)
        G, H = g[:, :, None] * g[:, None, :], jacrev(problem.gradients)(problem.w)
        if diagonal:
            G, H = (matrix.diagonal(dim1=1, dim2=2) for matrix in (G, H))
        return cls(problem.probabilities(problem.w), g, G, H)


def mean(p: Tensor, values: Tensor) -> Tensor:
    """E over labels with probabilities p of the values [K, ...]."""
    return torch.tensordot(p, values, dims=1)


def mse(scale: float | Tensor, approximation: Tensor, target: Tensor, p: Tensor) -> Tensor:
    """E||scale * approximation - target||²  (eq. 8); one number."""
    return mean(p, (scale * approximation - target).pow(2).flatten(1).sum(dim=1))


def best_scale(approximation: Tensor, target: Tensor, p: Tensor) -> Tensor:
    """The λ that minimises mse(λG): <E G, H> / E||G||²."""
    return (mean(p, approximation) * target).sum() / mean(p, approximation.pow(2).flatten(1).sum(dim=1))


PROBLEMS = [(2, "tanh"), (3, "tanh"), (5, "tanh"), (4, "relu")]
problems = pytest.mark.parametrize(("classes", "activation"), PROBLEMS, ids=lambda value: str(value))
diagonals = pytest.mark.parametrize("diagonal", [False, True], ids=["matrix", "diagonal"])


def small(classes: int, activation: str, seed: int = 0) -> Problem:
    return Problem(classes, seed, widths=[4], activation=activation)


@problems
@diagonals
def test_outer_product_has_hessians_mean(classes, activation, diagonal):
    """Preprint, theorem 3.3; and only there: labels of another distribution break it."""
    moments = Moments.of(small(classes, activation), diagonal=diagonal)
    expected = mean(moments.p, moments.H)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(mean(moments.p, moments.G), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mean(moments.p, moments.g), torch.zeros_like(moments.g[0]), rtol=0, atol=1e-12)

    others = (moments.p + 1.0 / classes) / 2.0
    assert (mean(others, moments.G) - mean(others, moments.H)).norm() > 0.01 * expected.norm()


@problems
@diagonals
def test_closed_form_best_lambda_matches_scan(classes, activation, diagonal):
    """The target is E H, as in the proof (eq. 16, 17); labels of the model and, where E G is not E H, of another."""
    moments = Moments.of(small(classes, activation), diagonal=diagonal)
    for p in (moments.p, moments.p.roll(1)):
        target = mean(p, moments.H)
        best = best_scale(moments.G, target, p)
        scan = best.round() + torch.arange(-1.0, 1.0, 1e-3, dtype=torch.float64)
        errors = torch.stack([mse(scale, moments.G, target, p) for scale in scan])
        assert 0 < errors.argmin() < len(scan) - 1
        assert abs(scan[errors.argmin()] - best) <= 0.51e-3
        assert mse(best, moments.G, target, p) <= errors.min()


@diagonals
def test_best_lambda_lies_in_0_1(diagonal):
    """λ* = ||H||² / E||G||² by theorem 3.3, which Jensen's inequality bounds by 1; all λ from 2λ*-1 to 1 beat λ=1."""
    outside = 0
    for seed, (classes, activation) in product(range(5), PROBLEMS):
        moments = Moments.of(small(classes, activation, seed), diagonal=diagonal)
        target = mean(moments.p, moments.H)
        best = best_scale(moments.G, target, moments.p)
        assert 0.0 < best < 1.0
        at_best, plain = mse(best, moments.G, target, moments.p), mse(1.0, moments.G, target, moments.p)
        torch.testing.assert_close(at_best, (1.0 - best) * target.pow(2).sum())
        inside, edge, beyond = (mse(2 * best - 1 + shift, moments.G, target, moments.p) for shift in (0.01, 0.0, -0.01))
        assert at_best < inside < plain < beyond
        torch.testing.assert_close(edge, plain)

        wrong = moments.p.roll(1)
        outside += not 0.0 < best_scale(moments.G, mean(wrong, moments.H), wrong) < 1.0
    assert outside > 0, "labels of any distribution would do: the bound above shows nothing"


def condition(moments: Moments, scale: float, labels: Tensor, gap: Tensor) -> Tensor:
    """Inequality (15), per element [n, n]; with labels of the model itself (gap 0, α = β = 1) (9) without its max.

    Args:
        moments: At w_t.
        scale: λ.
        labels: The labels' probabilities sigma(x, w*), [K].
        gap: |E H - E G| under these labels, [n, n].
    """
    slopes = (moments.p[:, None] * moments.g).abs()  # |∂σ_k / ∂w_i|
    low, high = slopes.amin(dim=0), slopes.amax(dim=0)
    low, high = torch.outer(low, low), torch.outer(high, high)
    ratios = labels / moments.p
    bound = moments.g.pow(2).sum(dim=1).max()  # L1²
    c = (high * ratios.max()).pow(2) / (low.pow(2) * ratios.min()) / (1.0 + scale)
    c_gap = 1.0 / ((1.0 + scale) * ratios.min() * low.pow(2))
    return moments.p.pow(-3).sum() >= 2.0 * (c * moments.p.reciprocal().sum().pow(2) + c_gap * bound * gap)


def element_mse(scale: float, moments: Moments, labels: Tensor) -> Tensor:
    """E(λ G_ij - E H_ij)² for every element, [n, n]."""
    return mean(labels, (scale * moments.G - mean(labels, moments.H)).pow(2))


@pytest.mark.parametrize("scale", [0.0, 0.3, 0.6, 0.9])
def test_two_classes_condition_9_tells_if_lambda_helps(scale):
    """|∂σ_1| = |∂σ_2| makes the proof's bounds equalities: (9) is 1/(σ_1 σ_2) >= 3 + 2/(1+λ) for all elements."""
    outcomes = set()
    for seed, odds in product(range(3), (0.0, 0.1, 2.0, -3.0)):
        problem = Problem(2, seed, widths=[3], activation="tanh", odds=odds)
        moments = Moments.of(problem)
        holds = bool(moments.p.prod().reciprocal() >= 3.0 + 2.0 / (1.0 + scale))
        gap = torch.zeros_like(moments.G[0])
        assert torch.equal(condition(moments, scale, moments.p, gap), torch.full_like(gap, holds, dtype=torch.bool))
        helps = element_mse(scale, moments, moments.p) <= element_mse(1.0, moments, moments.p)
        assert torch.equal(helps, torch.full_like(helps, holds))
        target = mean(moments.p, moments.H)
        assert bool(mse(scale, moments.G, target, moments.p) < mse(1.0, moments.G, target, moments.p)) is holds
        outcomes.add(holds)
    assert outcomes == {True, False}


@pytest.mark.parametrize("scale", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("distance", [0.0, 1e-6], ids=["converged", "converging"])
def test_where_the_condition_holds_lambda_helps(scale, distance):
    """Theorem 3.1 for every element of G: (9) at w_t = w*, its appendix form (15) near it.

    The text's (9) bounds all elements by the worst and, off w*, multiplies ε by C instead of C'; the proof is of (15).
    """
    held, total = 0, 0
    for seed in range(6):
        problem = Problem(3, seed, widths=[3], activation="tanh", odds=8.0)
        moments = Moments.of(problem)
        labels = problem.probabilities(problem.w + distance * problem.direction())
        gap = (mean(labels, moments.H) - mean(labels, moments.G)).abs() if distance else torch.zeros_like(moments.G[0])
        holds = condition(moments, scale, labels, gap)
        scaled, plain = element_mse(scale, moments, labels), element_mse(1.0, moments, labels)
        assert (scaled < plain)[holds].all()
        held, total = held + int(holds.sum()), total + holds.numel()
    assert 0 < held < total


def test_absolute_gradient_beats_square_where_claimed():
    """Preprint, theorem 3.4, option I on the diagonal: λ|g_i| for h_ii, 0 < λ <= 2K l_i, where its condition holds."""
    held = 0
    for seed in range(6):
        moments = Moments.of(Problem(3, seed, widths=[3], activation="tanh", odds=8.0))
        slopes = (moments.p[:, None] * moments.g).abs()
        low, high = slopes.amin(dim=0), slopes.amax(dim=0)
        target = mean(moments.p, moments.g.pow(2))
        sums = moments.p.pow(-3).sum(), moments.p.reciprocal().sum().pow(2)
        holds = sums[0] >= 2.0 * (high / low).pow(4) * sums[1]
        square = mean(moments.p, (moments.g.pow(2) - target).pow(2))
        for share in (0.1, 0.5, 1.0):
            absolute = mean(moments.p, (share * 2 * len(moments.p) * low * moments.g.abs() - target).pow(2))
            assert (absolute < square)[holds].all()
        held += int(holds.sum())
        too_large = mean(moments.p, (1e6 * low * moments.g.abs() - target).pow(2))
        assert (too_large > square)[holds].all()
    assert held > 0


@problems
def test_mean_outer_product_compensates_to_second_order(classes, activation):
    """Eq. 4, 5, 7: the delayed mean gradient is off by O(δ), the compensated one by O(δ²); for other labels by O(δ)."""
    problem = small(classes, activation)
    moments, direction = Moments.of(problem), problem.direction()

    def errors(p: Tensor, size: float) -> tuple[Tensor, Tensor]:
        delta = size * direction
        fresh, delayed = mean(p, problem.gradients(problem.w + delta)), mean(p, moments.g)
        return (delayed - fresh).norm(), (delayed + mean(p, moments.G) @ delta - fresh).norm()

    (delayed, compensated), (delayed_half, compensated_half) = errors(moments.p, 1e-3), errors(moments.p, 5e-4)
    assert delayed / delayed_half == pytest.approx(2.0, rel=0.02)
    assert compensated / compensated_half == pytest.approx(4.0, rel=0.02)
    assert compensated < 0.05 * delayed

    wrong = moments.p.roll(1)
    assert errors(wrong, 1e-3)[1] / errors(wrong, 5e-4)[1] == pytest.approx(2.0, rel=0.05)


@problems
def test_compensated_single_gradients_are_closer_in_expectation(classes, activation):
    """E||g_y + E[G]δ - g_y(w+δ)||² is smaller than without compensation, by ||E[H]δ||² to leading order."""
    problem = small(classes, activation)
    moments, delta = Moments.of(problem), 1e-4 * problem.direction()
    fresh = problem.gradients(problem.w + delta)
    shift = mean(moments.p, moments.G) @ delta
    delayed = mean(moments.p, (moments.g - fresh).pow(2).sum(dim=1))
    compensated = mean(moments.p, (moments.g + shift - fresh).pow(2).sum(dim=1))
    assert compensated < delayed
    gain = (mean(moments.p, moments.H) @ delta).pow(2).sum()
    torch.testing.assert_close(delayed - compensated, gain, rtol=0.01, atol=0.0)


@pytest.mark.parametrize("diagonal", [False, True], ids=["outer product", "dc_asgd_c"])
def test_own_gradient_helps_up_to_twice_best_lambda(diagonal):
    """g_y + λ G_y δ, and eq. 10's g_y + λ g_y ⊙ g_y ⊙ δ, over steps along every axis, both ways (isotropic steps).

    The model is linear, H the same for all labels: E||λ G_y - H||² rules, λ* = <E G, H> / E||G||², 2λ* is as bad as 0.
    """
    problem = Problem(4, 1, net=Linear)
    moments = Moments.of(problem)
    torch.testing.assert_close(moments.H, moments.H[:1].expand_as(moments.H))
    n = len(problem.w)
    deltas = 1e-4 * torch.cat([torch.eye(n), -torch.eye(n)]).double()
    fresh = vmap(problem.gradients)(problem.w + deltas)  # [2n, K, n]
    approximation = torch.diag_embed(moments.g.pow(2)) if diagonal else moments.G
    best = best_scale(approximation, moments.H[0], moments.p)
    assert 0.0 < best < 1.0

    def error(scale: Tensor) -> Tensor:
        compensated = moments.g + scale * torch.einsum("kij,dj->dki", approximation, deltas)
        return mean(moments.p, (compensated - fresh).pow(2).sum(dim=2).mean(dim=0))

    delayed = error(torch.zeros(()))
    assert error(best) < error(1.5 * best) < delayed < error(2.5 * best)
    assert error(best) < error(0.5 * best) < delayed
    torch.testing.assert_close(error(2.0 * best), delayed, rtol=1e-3, atol=0.0)
    predicted = mse(best, approximation, moments.H[0], moments.p) / mse(0.0, approximation, moments.H[0], moments.p)
    torch.testing.assert_close(error(best) / delayed, predicted, rtol=1e-3, atol=0.0)
