"""CoCoA+ with SDCA as the local solver.

    worker k, H samples i of its own shard, one after the other, from Δα = 0 and u = w:
                             δ = argmax_δ −φ_i*(−(α_i + Δα_i + δ)) − δ x_iᵀu − (σ'/2λn) ‖x_i‖² δ²        (eq. 3.4)
                             Δα_i ← Δα_i + δ,  u ← u + (σ'/λn) δ x_i                                 (algorithm 4)
    worker k:                α_[k] ← α_[k] + γ Δα,  contributes Δv_k = (1/λn) Σ_i Δα_i x_i
    all workers:             w ← w + γ Σ_k Δv_k

Source: Ma, Smith, Jaggi, Jordan, Richtárik and Takáč, "Adding vs. Averaging in Distributed Primal-Dual Optimization",
ICML 2015, adding (γ=1, σ'=γK), as the baseline of Huo's thesis (2020), section 3.5; SDCA is its algorithm 4. λ is
`weight_decay`, H is `run.batch_size`. There is no learning rate: `schedule.lr` has no effect.

σ' = γK is safe for all data: the paper proves convergence with it. A smaller one takes longer steps, and is safe where
samples of different workers are orthogonal enough: the paper asks for σ' ≥ γ max_α ‖Aα‖² / Σ_k ‖Aα_[k]‖², at least γ.

The maximum of eq. 3.4 is the loss's own: in closed form for the quadratic loss and the smoothed hinge, by Newton's
method for the logistic loss. `sdca_steps` is algorithm 4 as it is printed, for any loss. For a quadratic one
(φ_i'' = 1) the maximum is δ = −(φ_i'(x_iᵀu) + α_i + Δα_i) / (1 + σ'‖x_i‖²/λn), and the H steps are one lower-triangular
system in the δ, which `blocked_steps` solves in float64, block by block: the same steps, samples that are drawn again
included, without a loop over samples.

α_[k] is worker k's own; (1/λn) A α = w at the end of every round, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch, Collective, Message, Oracle, Problem, Rows, Step, flag, in_range, positive, zeros
from algorithms.host import array_of, rounded, tensor_of, with_places
from algorithms.sdca_blocks import is_narrow, narrow_steps

BLOCK = 256
"""Samples whose steps are solved for at a time; costs of a block grow with its square."""


def sdca_steps(rows: Rows, drawn: Tensor, w: Tensor, alpha: Tensor, coupling: float) -> tuple[Tensor, Tensor]:
    """Take algorithm 4's steps one by one, whatever the loss, in float64.

    Args:
        rows: the samples (B, d) with their losses.
        drawn: which of them each step is on (H,).
        w: the weights before the first step (d,).
        alpha: the samples' α_i before the first step (B,).
        coupling: σ'/λn.

    Returns:
        Δα (B,), and Σ Δα_i x_i (d,).
    """
    # In NumPy and plain numbers: an operation of PyTorch on so few of them costs more than all that a step computes.
    x = rows.x.double()
    samples = rows.vectors()
    u = w.double().cpu().numpy().copy()
    curvature = (coupling * x.square().sum(1)).tolist()
    own = alpha.tolist()
    for i in drawn.tolist():  # line 3
        features, values = samples[i]
        updated = rows.dual_step(i, float(u[features] @ values), own[i], curvature[i])  # line 4
        delta, own[i] = updated - own[i], updated  # line 5
        u[features] += coupling * delta * values  # line 6
    change = torch.tensor(own, dtype=torch.float64, device=alpha.device) - alpha.double()
    return change, change @ x


def blocked_steps(x: Any, drawn: Tensor | None, residue: Tensor, coupling: float) -> tuple[Tensor, Tensor]:
    """Take the steps of `sdca_steps` on a loss with φ_i'' = 1, a block of them as one triangular system.

    Args:
        x: the samples (B, d), a tensor or compressed rows.
        drawn: which of them each step is on (H,); None if each has one, in their order.
        residue: κ_i = φ_i'(x_iᵀw) + α_i before the first step (B,).
        coupling: σ'/λn.

    Returns:
        Δα (B,), and Σ Δα_i x_i (d,).
    """
    if is_narrow(x):
        return narrow_steps(x, drawn, residue, coupling)
    drawn = torch.arange(len(residue), device=residue.device) if drawn is None else drawn
    x, residue = x.double(), residue.double()
    change = torch.zeros_like(residue)  # Δα
    u = x.new_zeros(x.shape[1])  # (u − w) λn/σ'
    for block in drawn.split(BLOCK):
        own = x[block]
        # Row j: (1 + σ'‖x_j‖²/λn) δ_j + Σ_{i<j} (σ' x_iᵀx_j/λn + [the same sample]) δ_i = −κ_j
        system = coupling * (own @ own.T) + (block[:, None] == block[None, :])
        kappa = residue[block] + change[block] + coupling * (own @ u)
        delta = torch.linalg.solve_triangular(system, -kappa[:, None], upper=False)[:, 0]
        change.index_add_(0, block, delta)
        u += delta @ own
    return change, u


class CoCoAPlus(Collective):
    """One worker of CoCoA+, with the dual variables of its shard.

    Args:
        weight_decay: λ of the objective, above 0.
        gamma: γ in (0, 1], how much of every worker's step is taken; 1 adds them, 1/K averages them.
        sigma: σ', how much a worker's step allows for those of the others, at least γ; None for γK, which is safe.
        replacement: whether the H samples are drawn independently, so that one may come twice; if not, they differ.

    Raises:
        ValueError: an argument is out of range.
    """

    needs = "dual"

    def __init__(
        self,
        *,
        weight_decay: float = 0.1,
        gamma: float = 1.0,
        sigma: float | None = None,
        replacement: bool = True,
    ) -> None:
        self.replacement = flag("replacement", replacement)
        self.weight_decay = positive("weight_decay", weight_decay)
        if in_range("gamma", gamma, 0, 1) == 0:
            raise ValueError(f"algorithm.gamma={gamma}: no step would be taken; allowed: 0 < gamma <= 1")
        self.gamma = gamma
        # α of one worker alone makes the paper's bound γ, so below it no data are safe.
        self.sigma = None if sigma is None else in_range("sigma", sigma, gamma)

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
        sigma = self.gamma * self.workers if self.sigma is None else self.sigma
        coupling = sigma / lambda_n
        ids, where = with_places(batch.ids)
        rows = oracle.rows(ids)
        alpha, i = array_of(self.alpha), array_of(ids - self.low if self.low else ids)
        own = alpha[i]
        if rows.linear_slopes:
            residue = tensor_of(array_of(rows.slopes(self.w)) + own)  # φ_i'(x_iᵀw) + α_i
            change, u = blocked_steps(rows.x, where, residue, coupling)
        else:
            rows.count(self.w)
            where = torch.arange(len(ids)) if where is None else where
            change, u = sdca_steps(rows, where, self.w, tensor_of(own), coupling)
        # In float64, rounded once.
        own += self.gamma * array_of(change)
        alpha[i] = own
        return {"v": rounded(array_of(u) / lambda_n, like=self.w)}

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
        replacement: see `CoCoAPlus`.
    """

    default_workers = 1
    max_workers = 1

    def __init__(self, *, weight_decay: float = 0.1, replacement: bool = True) -> None:
        super().__init__(weight_decay=weight_decay, replacement=replacement)
