"""How far weights are from the optimum of a quadratic objective, and dual variables from certifying it.

    P(w) = (1/n) Σ φ_i(w) + (λ/2)‖w‖²,    D(α) = −(1/n) Σ φ_i*(−α_i) − (λ/2) ‖(1/λn) Σ α_i x_i‖²

P(w) − D(α) >= 0 for every w and α, as in Shalev-Shwartz and Zhang, "Stochastic dual coordinate ascent", JMLR 2013. All
sums are taken in float64. P is quadratic, and P(w) − P* = ½ (w − w*)ᵀ(Q + λI)(w − w*) is computed as that, so that it
is exact however small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Message
from runner.gradients.rows import rows_of
from runner.run_folder import columns

CHUNK = 8192
"""Samples at a time."""


class Objective:
    """Columns that a row of metrics gets for a model whose φ_i are known.

    Args:
        module: see `models.objective.RowObjective`.
        split: training samples.
        weight_decay: λ.
        duals: returns the dual variables in the state of a method; None if it has none.
    """

    def __init__(
        self, module: Any, split: Any, weight_decay: float, duals: Callable[[Sequence[Message]], Tensor | None]
    ) -> None:
        self.module = module
        self.split = split
        self.weight_decay = weight_decay
        self.duals = duals

    @torch.no_grad()
    def __call__(self, weights: Tensor, states: Sequence[Message]) -> dict[str, float]:
        """Return `primal`, `suboptimality` where P has a minimum, and with dual variables `dual` and `duality_gap`.

        Args:
            weights: flat weights (d,).
            states: see `algorithms.base.Stateful.duals`.
        """
        # Of the training data alone, so computed once in a run; an evaluation then costs a product with a d x d matrix.
        q, c, constant = self._quadratic
        # To float64, like q: in float32 the sums would round away what is left close to the optimum.
        w = weights.to(q)
        primal = float(w @ q @ w / 2 - c @ w + constant)
        row = {columns.PRIMAL: primal}
        if self._optimum is not None:
            away = w - self._optimum
            row[columns.SUBOPTIMALITY] = float(away @ q @ away / 2)
        # Without a regulariser the dual is not defined: it divides by λ.
        alpha = self.duals(states) if self.module.dual and self.weight_decay else None
        if alpha is not None:
            dual = self._dual(alpha.to(q))
            row |= {columns.DUAL: dual, columns.DUALITY_GAP: primal - dual}
        return row

    def _chunks(self) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """Yield sample numbers, samples (B, d) in float64, dense or compressed, and targets."""
        for ids in torch.arange(len(self.split)).split(CHUNK):
            x, targets = rows_of(self.split, ids)
            yield ids, x.double(), targets

    @cached_property
    @torch.no_grad()
    def _quadratic(self) -> tuple[Tensor, Tensor, Tensor]:
        n = len(self.split)
        # In the order of the samples, so that the sums have the same bits in every process.
        parts = [self.module.quadratic(x, targets) for _, x, targets in self._chunks()]
        q, c, constant = (torch.stack(list(each)).sum(0) / n for each in zip(*parts, strict=True))
        return q + self.weight_decay * torch.eye(len(c), dtype=q.dtype, device=q.device), c, constant

    @cached_property
    def _optimum(self) -> Tensor | None:
        """w*; None if P is not strictly convex."""
        q, c, _ = self._quadratic
        # A code, not an exception, says that there is no factor: a P without a unique minimum is a case, not a fault.
        factor, wrong = torch.linalg.cholesky_ex(q)
        return None if int(wrong) else torch.cholesky_solve(c[:, None], factor)[:, 0]

    def _dual(self, alpha: Tensor) -> float:
        n = len(self.split)
        combined, conjugates = torch.zeros_like(self._quadratic[1]), 0.0
        for ids, x, targets in self._chunks():
            own = alpha[ids.to(alpha.device)]
            combined += own @ x
            # In pieces of the training set, so that a copy of it in float64 is never in memory as a whole.
            conjugates += float(self.module.conjugates(own, targets).sum())
        u = combined / (self.weight_decay * n)
        return -conjugates / n - self.weight_decay / 2 * float(u @ u)
