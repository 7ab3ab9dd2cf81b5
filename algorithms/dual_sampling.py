"""How a worker of a dual method draws its H samples: uniformly, by how smooth their losses are, or by their residues.

A sample drawn with probability p_i instead of 1/n_k counts s_i = 1/(n_k p_i) times in the update of α and in the
message (eq. 3.7 and 3.8 of Dis-dfSDCA), which leaves both unbiased. n_k is the number of the worker's samples, L_i the
smoothness of φ_i, κ_i the residue ∇φ_i(w) + α_i.

    uniform       p_i = 1/n_k
    importance    p_i = ½ (1/n_k + L_i / Σ L)
    adaptive      p_i = ½ (1/n_k + r_i / Σ r),    r_i = ‖κ_i‖ √(1 + λn/L_i) at the pulled w

Source: Huo, PhD thesis 2020, section 3.3.2, which names the samplings without their formulas. "importance" is that of
Shalev-Shwartz, "SDCA without Duality", section on non-uniform sampling. "adaptive" is AdaSDCA's of Csiba, Qu and
Richtárik, ICML 2015, r_i = |κ_i| √(‖x_i‖² + λn/ℓ) for φ_i that is ℓ-smooth in x_iᵀw: there κ_i is the multiple of x_i
and L_i = ℓ ‖x_i‖², so it is the same number. For other φ_i, whose α_i are vectors, the form in L_i is ours: it
minimises what a step's variance adds to λ‖w − w*‖² + (1/n) Σ ‖α_i − α_i*‖²/L_i, the potential of dual-free SDCA.
Deviation: the uniform half of "adaptive" is ours; like that of "importance" it bounds s_i by 2.

"adaptive" needs κ of the worker's whole shard of the training set for every message, which its cost counts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.base import Batch, Oracle, Problem, Rows

SAMPLING = ("uniform", "importance", "adaptive")

Residues = Callable[[Rows, Tensor], Tensor]
"""Returns κ of samples, given as rows and by number: its multiple of x_i (B,), or (B, d)."""


class Sampler:
    """Draws the samples of one worker.

    Args:
        problem: what is solved.
        lambda_n: λ n.
        sampling: one of `SAMPLING`.
    """

    def __init__(self, problem: Problem, lambda_n: float, sampling: str) -> None:
        self.problem = problem
        self.lambda_n = lambda_n
        self.sampling = sampling
        self._last: tuple[Tensor, Tensor] | None = None

    def draw(self, oracle: Oracle, batch: Batch, residues: Residues) -> tuple[Tensor, Tensor | None]:
        """Return the samples to use (H,), and s_i by sample number (n,), or None if all are 1."""
        if self.sampling == "uniform":
            return batch.ids, None
        assert batch.pool is not None
        p, s = self.probabilities(oracle, batch.pool, residues)
        chosen = torch.multinomial(p, len(batch.ids), replacement=True, generator=oracle.generator(batch))
        return batch.pool[chosen.to(batch.pool.device)], s

    def probabilities(self, oracle: Oracle, pool: Tensor, residues: Residues) -> tuple[Tensor, Tensor]:
        """Return p_i over the pool, on the CPU in float64, and s_i by sample number (n,)."""
        # L_i never changes, so "importance" computes its p once, and again when the worker takes over another shard.
        if self.sampling == "importance" and self._last is not None and len(self._last[0]) == len(pool):
            return self._last
        rows = oracle.rows(pool, counted=False)
        measure = smoothness = rows.curvatures().double()
        if self.sampling == "adaptive":
            kappa = residues(rows, pool).double()
            # Of a multiple of x_i, the norm of what it multiplies too.
            kappa = kappa[:, None] * rows.x.double() if self.problem.scalar else kappa
            size = torch.linalg.vector_norm(kappa, dim=1)
            measure = size * (1 + self.lambda_n / smoothness).sqrt()
            # A sample without features has no gradient that could be large: 0 · ∞.
            measure = torch.where(smoothness > 0, measure, 0.0)
        total = measure.sum()
        share = measure / total if total > 0 else torch.full_like(measure, 1 / len(pool))
        p = (share + 1 / len(pool)) / 2
        s = rows.x.new_zeros(self.problem.samples)
        s[pool] = (1 / (len(pool) * p)).to(s.dtype)
        self._last = (p.cpu(), s)
        return self._last
