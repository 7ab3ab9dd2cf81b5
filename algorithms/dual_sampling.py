"""How a worker of a dual method draws its H samples: uniformly, by how smooth their losses are, or by their residues.

A sample drawn with probability p_i instead of 1/n_k counts s_i = 1/(n_k p_i) times in the update of α and in the
message (eq. 3.7 and 3.8 of Dis-dfSDCA), which leaves both unbiased. n_k is the number of the worker's samples, L_i the
smoothness of φ_i, κ_i the residue ∇φ_i(w) + α_i.

    uniform       p_i = 1/n_k
    importance    p_i = ½ (1/n_k + L_i / Σ L)
    adaptive      p_i = ½ (1/n_k + r_i / Σ r),    r_i = ‖κ_i‖ √(L_i + λn) at the pulled w

Source: Huo, PhD thesis 2020, section 3.3.2. "importance" is that of Shalev-Shwartz, "SDCA without Duality", section on
non-uniform sampling; "adaptive" follows Csiba, Qu and Richtárik 2015, and He and Takáč 2015. Deviation: the uniform
half of "adaptive" is ours; like that of "importance" it bounds s_i by 2.

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
        measure = rows.curvatures().double()
        if self.sampling == "adaptive":
            kappa = residues(rows, pool).double()
            size = kappa.abs() if self.problem.scalar else torch.linalg.vector_norm(kappa, dim=1)
            # ‖κ_i‖ of a multiple of x_i: L_i of a quadratic loss is ‖x_i‖².
            norm = torch.linalg.vector_norm(rows.x.double(), dim=1) if self.problem.scalar else 1.0
            measure = size * norm * (measure + self.lambda_n).sqrt()
        total = measure.sum()
        share = measure / total if total > 0 else torch.full_like(measure, 1 / len(pool))
        p = (share + 1 / len(pool)) / 2
        s = rows.x.new_zeros(self.problem.samples)
        s[pool] = (1 / (len(pool) * p)).to(s.dtype)
        self._last = (p.cpu(), s)
        return self._last
