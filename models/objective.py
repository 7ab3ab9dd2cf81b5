"""Objectives of one weight a feature, P(w) = (1/n) Σ φ_i(w) + (λ/2)‖w‖², whose φ_i are known one by one.

Dual methods ask for the gradients of single φ_i, and SDCA for its steps on them. λ is the method's `weight_decay`: a
model's own loss is the mean of φ_i alone, as every model's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from models.base import Chain, sizes


class RowObjective(Chain):
    """A linear map to one output, and the φ_i of its outputs; the weight starts at zero whatever the seed.

    Args:
        shape: Shape of an input; it is flattened to d features.

    Attributes:
        scalar: whether ∇φ_i(w) = φ_i'(x_iᵀw) x_i, so that a dual variable is one number a sample.
        dual: whether φ_i is a convex loss of x_iᵀw, and `conjugates` and `dual_step` are known.
        linear_slopes: whether φ_i'' = 1, where `scalar`: dual steps one after the other are linear equations then.
    """

    scalar: ClassVar[bool] = True
    dual: ClassVar[bool] = False
    linear_slopes: ClassVar[bool] = False

    def __init__(self, *, shape: Sequence[int]) -> None:
        features = math.prod(sizes("shape", tuple(shape), "the sizes of a sample, all positive"))
        linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(linear.weight)
        super().__init__([("flatten", nn.Flatten()), ("linear", linear)])

    @property
    def w(self) -> Tensor:
        """The weight (d,)."""
        weight = self.get_submodule("linear").weight
        assert isinstance(weight, Tensor)
        return weight[0]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of φ_i at the module's own weight, 0-d.

        Args:
            outputs: x_iᵀw, ``[B, 1]``.
            targets: class numbers ``[B]``.
        """
        return self.losses(self.w, outputs[:, 0], targets).mean()

    @abstractmethod
    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """Return φ_i(w) (B,), where z is x_iᵀw (B,)."""

    @abstractmethod
    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return φ_i'(z_i) (B,), where `scalar`."""

    @abstractmethod
    def gradients(self, w: Tensor, x: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """Return ∇φ_i(w) (B, d)."""

    @abstractmethod
    def curvatures(self, x: Tensor) -> Tensor:
        """Return L_i (B,), how smooth φ_i is: the largest modulus of an eigenvalue of its Hessian."""

    def conjugates(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """Return φ_i*(−α_i) (B,), where `dual`."""
        raise NotImplementedError(f"{type(self).__name__} has no dual objective")

    def feasible(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """Return the nearest α_i with a finite φ_i*(−α_i) (B,), where `dual`: by default α_i itself."""
        return alpha

    def dual_step(self, target: float, z: float, alpha: float, curvature: float) -> float:
        """Return the a that maximises −φ_i*(−a) − (a − α_i) z − (q/2) (a − α_i)², where `dual`.

        Args:
            target: of sample i.
            z: x_iᵀu at the weights u of the step.
            alpha: α_i, in the domain of φ_i*(−·).
            curvature: q, at least 0.
        """
        raise NotImplementedError(f"{type(self).__name__} has no dual objective")


class QuadraticForm:
    """What an objective tells besides if its φ_i are quadratic, so that the distance to P* is known exactly."""

    @abstractmethod
    def quadratic(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q (d, d), c (d,) and a number, so that Σ φ_i(w) = ½wᵀQw − cᵀw + the number."""


def signs(targets: Tensor, like: Tensor) -> Tensor:
    """Return y_i = −1 for class 0 and 1 for class 1 (B,), in the type of `like`."""
    return targets.to(like.dtype) * 2 - 1
