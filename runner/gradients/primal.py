"""The primal objective P(w) = (1/n) Σ φ_i(w) + (λ/2)‖w‖² in float64, and how far it is above its minimum P*.

A quadratic P is summed up once, as a d x d matrix: P(w) − P* = ½ (w − w*)ᵀ(Q + λI)(w − w*) is computed as that, so that
it is exact however small.

Any other P, and a quadratic one whose matrix would be too large, is a pass over the samples at each evaluation. P* is
found once, to `ACCURACY`, where φ_i are convex losses of x_iᵀw and λ > 0. The difference P(w) − P* then has an error of
about 1e-15 P: below that it is rounding, and may be negative.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.gradients.all_samples import AllSamples
from runner.gradients.minimum import minimum

log = logging.getLogger("dcrun")

Rows = list[tuple[Any, Tensor]]
"""Samples (B, d) in float64, dense or compressed, and their targets, in chunks."""

MATRIX_BYTES = 8 * 2**30
"""Most memory of the matrices of all chunks, which are added up at the end."""
ACCURACY = 1e-15
"""Largest error of P*, relative to it."""
SEARCHED_BYTES = 2**29
"""Largest training set on which P* is searched for, which takes some hundred passes: about a minute."""


def primal_of(module: Any, samples: AllSamples, weight_decay: float) -> QuadraticPrimal | SummedPrimal:
    """Return the primal objective in the form that fits the model and the memory.

    Args:
        module: see `models.objective.RowObjective`; with `quadratic`, see `models.objective.QuadraticForm`.
        samples: the training set.
        weight_decay: λ.
    """
    room = (samples.chunks + 2) * 8 * samples.features**2
    # By what the model offers, not by its name: a user's model with the same methods is measured as well.
    form = QuadraticPrimal if hasattr(module, "quadratic") and room <= MATRIX_BYTES else SummedPrimal
    return form(module, samples, weight_decay)


class QuadraticPrimal:
    """P from its matrix; the arguments are those of `primal_of`."""

    def __init__(self, module: Any, samples: AllSamples, weight_decay: float) -> None:
        self.module = module
        self.samples = samples
        self.weight_decay = weight_decay

    def __call__(self, w: Tensor) -> tuple[float, float | None]:
        """Return P(w), and P(w) − P* if there is a minimum; `w` (d,) is float64, on the samples' device."""
        # Of the training data alone, so computed once in a run; an evaluation then costs a product with a d x d matrix.
        q, c, constant = self._quadratic
        primal = float(w @ q @ w / 2 - c @ w + constant)
        if self._optimum is None:
            return primal, None
        away = w - self._optimum
        return primal, float(away @ q @ away / 2)

    @cached_property
    def _quadratic(self) -> tuple[Tensor, Tensor, Tensor]:
        # In the order of the samples, so that the sums have the same bits in every process.
        parts = [self.module.quadratic(x, targets) for _, x, targets in self.samples]
        q, c, constant = (torch.stack(list(each)).sum(0) / len(self.samples) for each in zip(*parts, strict=True))
        return q + self.weight_decay * torch.eye(len(c), dtype=q.dtype, device=q.device), c, constant

    @cached_property
    def _optimum(self) -> Tensor | None:
        """w*; None if P is not strictly convex."""
        q, c, _ = self._quadratic
        # A code, not an exception, says that there is no factor: a P without a unique minimum is a case, not a fault.
        factor, wrong = torch.linalg.cholesky_ex(q)
        return None if int(wrong) else torch.cholesky_solve(c[:, None], factor)[:, 0]


class SummedPrimal:
    """P by a pass over the samples; the arguments are those of `primal_of`."""

    def __init__(self, module: Any, samples: AllSamples, weight_decay: float) -> None:
        self.module = module
        self.samples = samples
        self.weight_decay = weight_decay
        self.device = torch.device("cpu")

    def __call__(self, w: Tensor) -> tuple[float, float | None]:
        """Return P(w), and P(w) − P* if P* is known; `w` (d,) is float64, on the samples' device."""
        self.device = w.device
        total = sum(float(self.module.losses(w, x @ w, targets).sum()) for _, x, targets in self.samples)
        primal = total / len(self.samples) + self.weight_decay / 2 * float(w @ w)
        return primal, None if self._least is None else primal - self._least

    @cached_property
    def _least(self) -> float | None:
        """P*; None if it is not known."""
        # Without a regulariser a minimum need not exist: classes that can be separated push w to infinity.
        if not self.module.dual or not self.weight_decay or self.samples.nbytes > SEARCHED_BYTES:
            return None
        # All in float64 for as long as the search takes: to make it anew costs more than the products of a pass.
        rows = [(x, targets) for _, x, targets in self.samples]
        gradient, hessian = partial(self._gradient, rows), partial(self._hessian, rows)
        least = minimum(gradient, hessian, self.samples.features, self.weight_decay, ACCURACY)
        if least is None:
            log.warning("the minimum of the objective was not found to %g of it: no suboptimality", ACCURACY)
        return least

    def _gradient(self, rows: Rows, at: np.ndarray) -> tuple[float, np.ndarray]:
        """Return P and its gradient (d,)."""
        w = torch.from_numpy(at).to(self.device)
        total, gradient = 0.0, torch.zeros_like(w)
        for x, targets in rows:
            z = x @ w
            total += float(self.module.losses(w, z, targets).sum())
            gradient += self.module.slopes(z, targets) @ x
        gradient = gradient / len(self.samples) + self.weight_decay * w
        return total / len(self.samples) + self.weight_decay / 2 * float(w @ w), gradient.cpu().numpy()

    def _hessian(self, rows: Rows, at: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the product of a vector (d,) with the Hessian at weights (d,)."""
        w = torch.from_numpy(at).to(self.device)
        seconds = [self._second_derivatives(x @ w, targets) for x, targets in rows]

        def product(vector: np.ndarray) -> np.ndarray:
            v = torch.from_numpy(vector).to(self.device)
            out = torch.zeros_like(v)
            for second, (x, _) in zip(seconds, rows, strict=True):
                out += (second * (x @ v)) @ x
            return (out / len(self.samples) + self.weight_decay * v).cpu().numpy()

        return product

    def _second_derivatives(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return φ_i''(z_i) (B,)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            return torch.autograd.grad(self.module.slopes(leaf, targets).sum(), leaf)[0]
