"""How far weights are from the optimum of an objective, and dual variables from certifying it.

    P(w) = (1/n) Σ φ_i(w) + (λ/2)‖w‖²,    D(α) = −(1/n) Σ φ_i*(−α_i) − (λ/2) ‖(1/λn) Σ α_i x_i‖²

P(w) − D(α) >= 0 for every w and α, as in Shalev-Shwartz and Zhang, "Stochastic dual coordinate ascent", JMLR 2013. All
sums are taken in float64. How P is computed: `runner.gradients.primal`.

Where α_i is outside the domain of φ_i*, D is −∞. Dual-free methods may step there, by rounding or at a large rate; D is
taken at the nearest α inside then, which certifies as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Message
from runner.gradients.all_samples import AllSamples
from runner.gradients.primal import QuadraticPrimal, SummedPrimal, primal_of
from runner.run_folder import columns


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
        self.weight_decay = weight_decay
        self.duals = duals
        self.device = next(iter(module.parameters())).device
        self.samples = AllSamples(split, sum(weight.numel() for weight in module.parameters()))

    @torch.no_grad()
    def __call__(self, weights: Tensor, states: Sequence[Message] | None) -> dict[str, float]:
        """Return `primal`, `suboptimality` where P* is known, and with dual variables `dual` and `duality_gap`.

        Args:
            weights: flat weights (d,).
            states: see `algorithms.base.Stateful.duals`; None if they are not known.
        """
        # In float64: in float32 the sums would round away what is left close to the optimum.
        w = weights.to(self.device, torch.float64)
        primal, suboptimality = self._primal(w)
        row = {columns.PRIMAL: primal}
        if suboptimality is not None:
            row[columns.SUBOPTIMALITY] = suboptimality
        # Without a regulariser the dual is not defined: it divides by λ.
        alpha = None if states is None or not (self.module.dual and self.weight_decay) else self.duals(states)
        if alpha is not None:
            dual = self._dual(alpha.to(w))
            row |= {columns.DUAL: dual, columns.DUALITY_GAP: primal - dual}
        return row

    @cached_property
    def _primal(self) -> QuadraticPrimal | SummedPrimal:
        # Kept: what it knows of the training set does not change, and takes long to find.
        return primal_of(self.module, self.samples, self.weight_decay)

    def _dual(self, alpha: Tensor) -> float:
        n = len(self.samples)
        combined, conjugates = alpha.new_zeros(self.samples.features), 0.0
        for ids, x, targets in self.samples:
            own = self.module.feasible(alpha[ids.to(alpha.device)], targets)
            combined += own @ x
            # In pieces of the training set, so that a copy of it in float64 is never in memory as a whole.
            conjugates += float(self.module.conjugates(own, targets).sum())
        u = combined / (self.weight_decay * n)
        return -conjugates / n - self.weight_decay / 2 * float(u @ u)
