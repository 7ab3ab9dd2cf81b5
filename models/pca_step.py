"""The step of principal component analysis that Huo's thesis (2020) minimises, eq. 3.40, after Garber and Hazan 2015.

    φ_i(w) = ½wᵀ((μ−λ)I − x_i x_iᵀ)w − bᵀw

With ‖x_i‖ = 1, φ_i + (λ/2)‖w‖² is non-convex where μ < 1, and the mean of φ_i is convex where μ − λ > σ₁(C), the
largest eigenvalue of C = (1/n) Σ x_i x_iᵀ. With the thesis' μ = 100 every φ_i is strongly convex.

Decided here, since the thesis says only that b is random: standard normal, with a seed of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.objective import QuadraticForm, RowObjective


class PCAStep(RowObjective, QuadraticForm):
    """Eq. 3.40 on samples without labels; there are no guesses and no errors.

    Args:
        shape: Shape of an input; it is flattened.
        classes: Number of classes of the data, which is not used.
        mu: μ.
        weight_decay: λ, the method's.
        seed: of b; not the run's seed, so that all runs minimise the same objective.

    Raises:
        ValueError: An argument is out of range.
    """

    scalar = False
    classifies = False
    takes_numbers = True

    def __init__(
        self, *, shape: Sequence[int], classes: int, mu: float = 100.0, weight_decay: float = 1e-4, seed: int = 0
    ) -> None:
        super().__init__(shape=shape)
        for key, value in (("mu", mu), ("weight_decay", weight_decay)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"model.{key}={value}: is out of range; allowed: numbers from 0")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"model.seed={seed}: is not a seed; allowed: whole numbers from 0")
        self.shift = mu - weight_decay
        b = torch.randn(self.w.numel(), generator=torch.Generator().manual_seed(seed))
        self.register_buffer("b", b)
        self.b: Tensor

    def errors(self, outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
        """Return no errors: there is nothing to guess."""
        return torch.zeros((), dtype=torch.int64, device=outputs.device)

    def losses(self, w: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.losses`."""
        return (self.shift / 2) * w.square().sum() - self.b.to(w.dtype) @ w - z.square() / 2

    def slopes(self, z: Tensor, targets: Tensor) -> Tensor:
        """Raise: this objective has none."""
        raise NotImplementedError("∇φ_i(w) of a PCA step is not a multiple of x_i")

    def gradients(self, w: Tensor, x: Tensor, z: Tensor, targets: Tensor) -> Tensor:
        """See `RowObjective.gradients`."""
        return (self.shift * w - self.b).expand_as(x) - z[:, None] * x

    def curvatures(self, x: Tensor) -> Tensor:
        """Return max(|μ−λ|, |μ−λ−‖x_i‖²|)."""
        return (self.shift - x.square().sum(1)).abs().clamp(min=abs(self.shift))

    def conjugates(self, alpha: Tensor, targets: Tensor) -> Tensor:
        """Raise: this objective has none."""
        raise NotImplementedError("φ_i of a PCA step need not be convex, and has no conjugate then")

    def quadratic(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Σ (μ−λ)I − x_i x_iᵀ, Σ b, 0."""
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return len(x) * self.shift * eye - x.T @ x, len(x) * self.b.to(x.dtype), x.new_zeros(())
