"""Logistic regression on the classes −1 and 1.

    φ_i(w) = log(1 + exp(−y_i x_iᵀw)),    φ_i'(z) = −y_i / (1 + exp(y_i z)),    0 <= φ_i'' <= 1/4
    φ_i*(−a) = b log b + (1 − b) log(1 − b) with b = a y_i in [0, 1], infinite elsewhere

The step of SDCA has no closed form. With b = 1/(1 + exp(−t)) its maximum is where t + y z + q (b − α_i y_i) = 0, whose
left side rises with a slope of at least 1. Newton's method finds t from the side on which it cannot step beyond, up to
rounding; so b is known to some 1e-15 of it, near 0 too.

Source: Shalev-Shwartz and Zhang, JMLR 2013, who name the loss; the equation in t is ours. The l2 term is the method's,
λ = `weight_decay`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.objective import signs
from models.scalar_loss import ScalarLoss

MOST_STEPS = 200
"""Of Newton's method, which takes up to seven at q <= 10 and 24 at q = 1e9, as measured: it must end in any case."""


class Logistic(ScalarLoss):
    """Logistic loss on two classes, no bias; the arguments are those of `ScalarLoss`."""

    option = "logistic"

    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.losses`."""
        # Not by `softplus`, which takes a large argument for its own value: 2e-9 off.
        return -functional.logsigmoid(signs(targets, z) * z)

    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.slopes`."""
        y = signs(targets, z)
        return -y * torch.sigmoid(-y * z)

    def curvatures(self, x: Tensor) -> Tensor:
        """Return ‖x_i‖²/4."""
        return x.square().sum(1) / 4

    def feasible(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.feasible`."""
        y = signs(targets, alpha)
        return y * (alpha * y).clamp(0, 1)

    def conjugates(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.conjugates`."""
        b = alpha * signs(targets, alpha)
        inside = torch.special.xlogy(b, b) + torch.special.xlog1py(1 - b, -b)  # 0 log 0 = 0
        return torch.where((b >= 0) & (b <= 1), inside, math.inf)

    def dual_step(self, target: float, z: float, alpha: float, curvature: float) -> float:
        """See `RowObjective.dual_step`."""
        y = 2 * target - 1
        margin, b = y * z, alpha * y
        # By symmetry t -> −t the new b is kept below one half, where its differences are exact.
        if margin + curvature * (0.5 - b) < 0:
            return y * _sigmoid(-_root(-margin, 1 - b, curvature))
        return y * _sigmoid(_root(margin, b, curvature))


def _root(margin: float, b: float, curvature: float) -> float:
    """Return the t <= 0 with t + margin + q (1/(1 + exp(−t)) − b) = 0, whose left side is convex there."""
    # Where it is not negative: from there Newton's method falls to the root without a step beyond it.
    t = min(0.0, curvature * b - margin)
    for _ in range(MOST_STEPS):
        p = _sigmoid(t)
        excess, slope = t + margin + curvature * (p - b), 1 + curvature * p * (1 - p)
        # As close as t and the terms of the excess can be rounded to.
        terms = abs(t) + abs(margin) + curvature * (p + b)
        if abs(excess) <= 2**-52 * max(terms, slope * max(1.0, abs(t))):
            break
        t -= excess / slope
    return t


def _sigmoid(t: float) -> float:
    """Return 1/(1 + exp(−t)), to full precision and without overflow."""
    if t >= 0:
        return 1 / (1 + math.exp(-t))
    small = math.exp(t)
    return small / (1 + small)
