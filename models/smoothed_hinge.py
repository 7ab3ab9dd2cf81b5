"""A support vector machine whose hinge loss is smoothed, on the classes −1 and 1.

    φ_i(w) = 0                      if m_i >= 1,       with the margin m_i = y_i x_iᵀw
             (1 − m_i)² / 2γ        if 1 − γ < m_i < 1
             1 − m_i − γ/2          if m_i <= 1 − γ
    φ_i'(z) = −y_i h_i with h_i = (1 − m_i)/γ cut to [0, 1],    0 <= φ_i'' <= 1/γ
    φ_i*(−a) = −b + γ b²/2 with b = a y_i in [0, 1], infinite elsewhere

For γ → 0 it is the hinge loss max(0, 1 − m_i) of section 3.1 of Huo's thesis (2020), which is not smooth.

Source: Shalev-Shwartz and Zhang, JMLR 2013. The l2 term is the method's, λ = `weight_decay`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.objective import signs
from models.scalar_loss import ScalarLoss


class SmoothedHinge(ScalarLoss):
    """Smoothed hinge loss on two classes, no bias; an error is an output of the wrong sign.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes, 2.
        gamma: γ, how much is smoothed: the loss is (1/γ)-smooth in x_iᵀw.

    Raises:
        ValueError: γ is not above 0, or the dataset has another number of classes.
    """

    option = "smoothed_hinge"

    def __init__(self, *, shape: Sequence[int], classes: int, gamma: float = 1.0) -> None:
        super().__init__(shape=shape, classes=classes)
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 < gamma < math.inf:
            raise ValueError(f"model.gamma={gamma}: smooths no hinge; allowed: numbers above 0")
        self.gamma = gamma

    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.losses`."""
        below = 1 - signs(targets, z) * z
        h = (below / self.gamma).clamp(0, 1)
        # φ = max_h h (1 − m) − γh²/2 over [0, 1]: one formula for the three pieces.
        return h * below - self.gamma / 2 * h.square()

    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.slopes`."""
        y = signs(targets, z)
        return -y * ((1 - y * z) / self.gamma).clamp(0, 1)

    def curvatures(self, x: Tensor) -> Tensor:
        """Return ‖x_i‖²/γ."""
        return x.square().sum(1) / self.gamma

    def feasible(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.feasible`."""
        y = signs(targets, alpha)
        return y * (alpha * y).clamp(0, 1)

    def conjugates(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.conjugates`."""
        b = alpha * signs(targets, alpha)
        return torch.where((b >= 0) & (b <= 1), self.gamma / 2 * b.square() - b, math.inf)

    def dual_step(self, target: float, z: float, alpha: float, curvature: float) -> float:
        """See `RowObjective.dual_step`."""
        y = 2 * target - 1
        b = (1 - y * z + curvature * alpha * y) / (self.gamma + curvature)
        return y * min(max(b, 0.0), 1.0)
