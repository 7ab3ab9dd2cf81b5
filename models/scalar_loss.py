"""Convex losses of x_iᵀw on the classes −1 and 1, with their conjugates: φ_i(w) = φ(x_iᵀw, y_i), no bias.

What they share: two classes, a guess by the sign of the output, gradients φ_i'(x_iᵀw) x_i, and dual variables that are
numbers. Their formulas are those of Shalev-Shwartz and Zhang, "Stochastic Dual Coordinate Ascent Methods for
Regularized Loss Minimization", JMLR 2013.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, count_nonzero, zeros_like

from models.objective import RowObjective


class ScalarLoss(RowObjective):
    """A linear map to one output and a convex loss of it on two classes; an error is an output of the wrong sign.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes, 2; or 0 for targets that are numbers, if it takes them.

    Raises:
        ValueError: another number of classes.

    Attributes:
        option: how the model is called on the command line, and in messages.
    """

    dual = True
    option: ClassVar[str]

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        if classes != 2 and not (classes == 0 and self.takes_numbers):
            what = f"separates two classes, but the dataset has {classes}"
            more = ", or dataset.targets=numbers where labels are not classes" if self.takes_numbers else ""
            raise ValueError(f"model={self.option}: {what}; allowed: 2 classes{more}")
        super().__init__(shape=shape)
        self.classifies = classes == 2

    def errors(self, outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
        """See `Chain.errors`; an output of 0 guesses class 0."""
        wrong = count_nonzero((outputs[:, 0] > 0) != (targets == 1))
        return wrong if guesses == 1 else zeros_like(wrong)

    def gradients(self, w: Tensor, x: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.gradients`."""
        return self.slopes(z, targets)[:, None] * x

    @abstractmethod
    def dual_step(self, target: float, z: float, alpha: float, curvature: float) -> float:
        """See `RowObjective.dual_step`."""
