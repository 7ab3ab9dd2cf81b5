"""CLARS, complete layer-wise adaptive rate scaling: LARS with the mean norm of single samples' gradients.

    γ_k = γ_scale · η · ‖(w_t)_k‖ / ((1/B) Σ_{i∈I_t} ‖∇_k f_i(w_t)‖)                        (eq. 4.7)

in the step of mNAG (eq. 4.6): LARS times ‖mean ∇_k f_i‖ / mean ‖∇_k f_i‖ ≤ 1 (eq. 4.8), which is small where samples
disagree and so takes the place of the warm-up.

Source: Huo, PhD thesis 2020, section 4.3. Where it contradicts itself: algorithm 8 squares the norms, section 4.4.4
turns the ratio of squares M_k upside down; eq. 4.7 rules, as 4.8 repeats it. Section 4.4.4 estimates the norms on
|J| = 512 samples: here with `samples`, on the batch's first |J|, which a random batch makes a random subset. M workers
take the first ⌈|J|/M⌉ of their shares, and each mean counts by its share's samples.

Under batch norm f_i depends on the whole batch. ∇_k f_i then means what sample i's activations and output gradients
contribute to layer k's gradient, times B: these contributions average to the batch gradient exactly.
Layers, ‖w_k‖ = 0 and weight decay as in LARS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from algorithms.base import Batch, Message, Oracle, Step
from algorithms.lars import LARS


@dataclass(kw_only=True, eq=False)
class CLARS(LARS):
    """LARS on mean norms of single samples' gradients; the other arguments are those of `LARS`.

    Args:
        samples: |J|, on how many samples of a step norms are averaged; None for all.

    Raises:
        ValueError: an argument is out of range.
    """

    per_sample: ClassVar[bool] = True

    eta: float = 0.01
    samples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        samples = self.samples
        if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
            raise ValueError(
                f"algorithm.samples={samples}: is not a number of samples; allowed: integers from 1, or null"
            )

    def layout(self, n: int) -> dict[str, int]:
        """Return the gradient, and the layers' mean per-sample norms."""
        return {"g": n, "norms": len(self.layers)}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message:
        """Return this worker's mean gradient and mean per-sample norms."""
        own = None if self.samples is None else -(-self.samples // self.workers)
        g, norms = oracle.gradient_and_norms(self.w, batch, own)
        if step.relative_size != 1.0:
            g.mul_(step.relative_size)
            norms.mul_(step.relative_size)
        return {"g": g, "norms": norms}

    def gradient_norms(self, combined: Message) -> Tensor:
        """Return (1/B) Σ ‖∇_k f_i‖, (layers,)."""
        return combined["norms"]  # eq. 4.7
