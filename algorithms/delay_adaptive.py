"""Asynchronous SGD whose learning rate falls with the delay of the gradient at hand.

    push of g with delay τ:    w ← w − η_τ g

      mishchenko   η_τ = η M / max(M, τ)                                  M workers
      koloskova    η_τ = η if τ ≤ τ_C, else min(η, 1 / (4 L τ))           τ_C concurrency, L smoothness

Sources: Mishchenko et al., "Asynchronous SGD Beats Minibatch SGD Under Arbitrary Delays", NeurIPS 2022
(arXiv 2206.07638); Koloskova et al., "Sharper Convergence Guarantees for Asynchronous SGD for Distributed and Federated
Learning", NeurIPS 2022. Both rules are second hand: written down from accounts of the papers, whose numbers of theorems
and algorithms are therefore not given.

With one worker τ = 0, and both are sequential SGD, to the bit; they are ASGD wherever no delay is above M or τ_C.

The papers' rates have no schedule: η here is the schedule's learning rate of the push. Beyond the papers: momentum and
weight decay on the server, as in `algorithms.asgd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from algorithms.asgd import ASGD
from algorithms.base import Step, in_range, integer, one_of


@dataclass(kw_only=True, eq=False)
class DelayAdaptive(ASGD):
    """Delay-adaptive ASGD; `momentum`, `nesterov` and `weight_decay` are those of `SGDOptions`, on the server.

    Args:
        rule: "mishchenko" or "koloskova".
        smoothness: L of the objective, above 0; for "koloskova", which needs it, only.
        tau_c: τ_C ≥ 0, the delay up to which η is kept; None for the number of workers. For "koloskova" only.

    Raises:
        ValueError: an argument is out of range, or belongs to the other rule.
    """

    # No option here: the rule is what the method is about.
    staleness: ClassVar[str] = "plain"

    rule: str = "mishchenko"
    smoothness: float | None = None
    tau_c: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("rule", self.rule, ("mishchenko", "koloskova"))
        if self.rule == "mishchenko":
            for name, value in (("smoothness", self.smoothness), ("tau_c", self.tau_c)):
                if value is not None:
                    raise ValueError(f"algorithm.{name}={value}: is of rule=koloskova; allowed: null, or that rule")
        elif self.smoothness is None or in_range("smoothness", self.smoothness, 0) == 0:
            raise ValueError(
                f"algorithm.smoothness={self.smoothness}: rule=koloskova divides by it; allowed: smoothness > 0"
            )
        if self.tau_c is not None:
            in_range("tau_c", integer("tau_c", self.tau_c), 0)

    def rate(self, step: Step) -> float:
        """Return η_τ."""
        eta, tau = step.lr, step.staleness
        if self.rule == "mishchenko":
            # Not η M / M for small delays: a product and a quotient would round.
            return eta if tau <= self.workers else eta * self.workers / tau
        if tau <= (self.workers if self.tau_c is None else self.tau_c):
            return eta
        assert self.smoothness is not None
        return min(eta, 1 / (4 * self.smoothness * tau))
