"""Ridge regression on the classes −1 and 1, eq. 3.38 of Huo's thesis (2020), or on numbers.

    φ_i(w) = ½(x_iᵀw − y_i)²,    φ_i'(z) = z − y_i,    φ_i*(−a) = ½a² − a y_i

The l2 term is the method's, λ = `weight_decay`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.objective import QuadraticForm, signs
from models.scalar_loss import ScalarLoss


class Ridge(ScalarLoss, QuadraticForm):
    """Quadratic loss on two classes or on numbers, no bias; the arguments are those of `ScalarLoss`.

    On numbers there are no errors, and the loss is half the mean squared error.
    """

    option = "ridge"
    linear_slopes = True
    takes_numbers = True

    def errors(self, outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
        """See `ScalarLoss.errors`; none on numbers."""
        if self.classifies:
            return super().errors(outputs, targets, guesses)
        return torch.zeros((), dtype=torch.int64, device=outputs.device)

    def _y(self, targets: Tensor, like: Tensor) -> Tensor:
        """Return y_i (B,), in the type of `like`."""
        return signs(targets, like) if self.classifies else targets.to(like.dtype)

    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.losses`."""
        return (z - self._y(targets, z)).square() / 2

    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.slopes`."""
        return z - self._y(targets, z)

    def slopes_and_score(self, z: Tensor, targets: Tensor) -> tuple[Tensor, float, int]:
        """Return `slopes`, the sum of `losses` and `errors` of samples in CPU memory.

        In NumPy: a message has some hundred samples, and on so few an operator of PyTorch costs more than it computes.
        Slopes and errors have the same bits; the sum has its order from another library.
        """
        outputs = z.numpy()
        y, errors = targets.numpy().astype(outputs.dtype), 0
        if self.classifies:
            y *= 2
            y -= 1
            errors = int(np.count_nonzero((outputs > 0) != (y > 0)))
        slopes = outputs - y
        loss = float(slopes @ slopes) / 2
        return torch.from_numpy(slopes), loss, errors

    def curvatures(self, x: Tensor) -> Tensor:
        """Return ‖x_i‖²."""
        return x.square().sum(1)

    def conjugates(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.conjugates`."""
        return alpha.square() / 2 - alpha * self._y(targets, alpha)

    def dual_step(self, target: float, z: float, alpha: float, curvature: float) -> float:
        """See `RowObjective.dual_step`."""
        y = 2 * target - 1 if self.classifies else target
        return (y - z + curvature * alpha) / (1 + curvature)

    def quadratic(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Σ x_i x_iᵀ, Σ y_i x_i, Σ ½y_i²."""
        y = self._y(targets, x)
        return x.T @ x, x.T @ y, y.square().sum() / 2
