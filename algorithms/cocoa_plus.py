"""CoCoA+ with SDCA as the local solver.

    worker k, H samples i of its own shard, one after the other, from Δα = 0 and u = w:
                             δ = argmax_δ −φ_i*(−(α_i + Δα_i + δ)) − δ x_iᵀu − (σ'/2λn) ‖x_i‖² δ²        (eq. 3.4)
                             Δα_i ← Δα_i + δ,  u ← u + (σ'/λn) δ x_i                                 (algorithm 4)
    worker k:                α_[k] ← α_[k] + γ Δα,  contributes Δv_k = (1/λn) Σ_i Δα_i x_i
    all workers:             w ← w + γ Σ_k Δv_k

Source: Ma, Smith, Jaggi, Jordan, Richtárik and Takáč, "Adding vs. Averaging in Distributed Primal-Dual Optimization",
ICML 2015, adding (γ=1, σ'=γK), as the baseline of Huo's thesis (2020), section 3.5; SDCA is its algorithm 4. λ is
`weight_decay`, H is `run.batch_size`. There is no learning rate: `schedule.lr` has no effect.

For a quadratic loss (φ_i'' = 1) the maximum is δ = −(φ_i'(x_iᵀu) + α_i + Δα_i) / (1 + σ'‖x_i‖²/λn), and the H steps
are one lower-triangular system in the δ, which is solved in float64, block by block: the same steps, samples that are
drawn again included, without a loop over samples. Other losses are refused.

α_[k] is worker k's own; (1/λn) A α = w at the end of every round, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.base import Batch, Collective, Message, Oracle, Problem, Step, in_range, positive, zeros

BLOCK = 256
"""Samples whose steps are solved for at a time; costs of a block grow with its square."""


class CoCoAPlus(Collective):
    """One worker of CoCoA+, with the dual variables of its shard.

    Args:
        weight_decay: λ of the objective, above 0.
        gamma: γ in (0, 1], how much of every worker's step is taken; 1 adds them, 1/K averages them. σ' = γK.

    Raises:
        ValueError: an argument is out of range.
    """

    needs = "dual"

    def __init__(self, *, weight_decay: float = 0.1, gamma: float = 1.0) -> None:
        self.weight_decay = positive("weight_decay", weight_decay)
        if in_range("gamma", gamma, 0, 1) == 0:
            raise ValueError(f"algorithm.gamma={gamma}: no step would be taken; allowed: 0 < gamma <= 1")
        self.gamma = gamma

    def bind_problem(self, problem: Problem) -> None:
        """See `Stateful.bind_problem`."""
        self.problem = problem

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`; there is nothing to compile."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.low = self.problem.shard(rank).start
        # As long on every worker, so that states can be gathered; the last may be unused.
        self.alpha = zeros(self.problem.largest, like=w)

    def layout(self, n: int) -> dict[str, int]:
        """Return Δv_k."""
        return {"v": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Take H steps of SDCA on the local subproblem and contribute what they change in w."""
        lambda_n = self.weight_decay * self.problem.samples
        coupling = self.gamma * self.workers / lambda_n  # σ'/λn
        ids, where = batch.ids.unique(return_inverse=True)
        rows = oracle.rows(ids)
        x = rows.x.double()
        residue = (rows.slopes(self.w) + self.alpha[ids - self.low]).double()  # φ_i'(x_iᵀw) + α_i
        change = torch.zeros_like(residue)  # Δα
        u = x.new_zeros(x.shape[1])  # (u − w) λn/σ'
        for drawn in where.split(BLOCK):
            own = x[drawn]
            # Row j: (1 + σ'‖x_j‖²/λn) δ_j + Σ_{i<j} (σ' x_iᵀx_j/λn + [the same sample]) δ_i = −κ_j
            system = coupling * (own @ own.T) + (drawn[:, None] == drawn[None, :])
            kappa = residue[drawn] + change[drawn] + coupling * (own @ u)
            delta = torch.linalg.solve_triangular(system, -kappa[:, None], upper=False)[:, 0]
            change.index_add_(0, drawn, delta)
            u += delta @ own
        self.alpha[ids - self.low] += self.gamma * change.to(self.alpha.dtype)
        return {"v": (u / lambda_n).to(self.w.dtype)}

    def apply(self, combined: Message, step: Step) -> None:
        """Add up the contributions: the executor combines them to their mean."""
        self.w.add_(combined["v"], alpha=self.gamma * self.workers)

    def state(self) -> Message:
        """Return `w`, and this worker's `alpha`."""
        return {"w": self.w, "alpha": self.alpha}

    def duals(self, states: Sequence[Message]) -> Tensor | None:
        """See `Stateful.duals`."""
        shards = (state["alpha"][: len(self.problem.shard(k))] for k, state in enumerate(states))
        return torch.cat(list(shards))


class SDCA(CoCoAPlus):
    """SDCA on one worker, algorithm 4: σ' = 1.

    Args:
        weight_decay: λ of the objective, above 0.
    """

    default_workers = 1
    max_workers = 1

    def __init__(self, *, weight_decay: float = 0.1) -> None:
        super().__init__(weight_decay=weight_decay)
