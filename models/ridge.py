"""Ridge regression on the classes −1 and 1, eq. 3.38 of Huo's thesis (2020).

    φ_i(w) = ½(x_iᵀw − y_i)²,    φ_i'(z) = z − y_i,    φ_i*(−a) = ½a² − a y_i

The l2 term is the method's, λ = `weight_decay`.
"""

from __future__ import annotations

from torch import Tensor

from models.objective import QuadraticForm, signs
from models.scalar_loss import ScalarLoss


class Ridge(ScalarLoss, QuadraticForm):
    """Quadratic loss on two classes, no bias; the arguments are those of `ScalarLoss`."""

    option = "ridge"
    linear_slopes = True

    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.losses`."""
        return (z - signs(targets, z)).square() / 2

    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.slopes`."""
        return z - signs(targets, z)

    def curvatures(self, x: Tensor) -> Tensor:
        """Return ‖x_i‖²."""
        return x.square().sum(1)

    def conjugates(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.conjugates`."""
        return alpha.square() / 2 - alpha * signs(targets, alpha)

    def dual_step(self, target: float, z: float, alpha: float, curvature: float) -> float:
        """See `RowObjective.dual_step`."""
        y = 2 * target - 1
        return (y - z + curvature * alpha) / (1 + curvature)

    def quadratic(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Σ x_i x_iᵀ, Σ y_i x_i, Σ ½y_i²."""
        y = signs(targets, x)
        return x.T @ x, x.T @ y, y.square().sum() / 2
