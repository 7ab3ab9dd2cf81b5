"""Ridge regression on the classes −1 and 1, eq. 3.38 of Huo's thesis (2020).

    φ_i(w) = ½(x_iᵀw − y_i)²,    φ_i'(z) = z − y_i,    φ_i*(−a) = ½a² − a y_i

The l2 term is the method's, λ = `weight_decay`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.objective import QuadraticForm, RowObjective, signs


class Ridge(RowObjective, QuadraticForm):
    """Quadratic loss on two classes, no bias; an error is an output of the wrong sign.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes, 2.

    Raises:
        ValueError: another number of classes.
    """

    dual = True
    linear_slopes = True

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        if classes != 2:
            raise ValueError(f"model=ridge: separates two classes, but the dataset has {classes}; allowed: 2 classes")
        super().__init__(shape=shape)

    def errors(self, outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
        """See `Chain.errors`; an output of 0 guesses class 0."""
        wrong = torch.count_nonzero((outputs[:, 0] > 0) != (targets == 1))
        return wrong if guesses == 1 else torch.zeros_like(wrong)

    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.losses`."""
        return (z - signs(targets, z)).square() / 2

    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.slopes`."""
        return z - signs(targets, z)

    def gradients(self, w: Tensor, x: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.gradients`."""
        return self.slopes(z, targets)[:, None] * x

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
