"""LARS, layer-wise adaptive rate scaling: each layer's learning rate follows its weights and its gradient.

    γ_k = γ_scale · η · ‖(w_t)_k‖ / ‖(1/B) Σ_{i∈I_t} ∇_k f_i(w_t)‖                          (eq. 4.3)

in the step of mNAG (eq. 4.6). γ_scale is the schedule's learning rate, γ_base · B / B_base under linear scaling, B the
batch size times the number of workers; the norm is of the mean gradient over all of them. Every module that owns
weights is a layer, batch norm too; its weight and bias count together.

Source: Huo, PhD thesis 2020, section 4.2, after You et al. 2017, "Large batch training of convolutional networks".

Where the thesis is silent: η ‖w_k‖ / ‖ḡ_k‖ is 1, and so γ_k = γ_scale, while ‖w_k‖ = 0 or ‖ḡ_k‖ = 0, as in the
published implementations. With weight decay λ the denominator is ‖ḡ_k‖ + λ ‖w_k‖, You et al.'s form, and the step is
along ḡ_k + λ w_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.base import Message, in_range
from algorithms.nag import LayerwiseNAG


@dataclass(kw_only=True, eq=False)
class LARS(LayerwiseNAG):
    """mNAG with a learning rate for each layer that follows its weights and gradient; β and λ: see `MomentumOptions`.

    Args:
        eta: η > 0, the trust coefficient.

    Raises:
        ValueError: an argument is out of range.
    """

    # A layer's step is relative to the size of its weights.
    usual_rates: ClassVar[tuple[float, ...]] = (0.1, 3.0, 30.0)

    eta: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if in_range("eta", self.eta, 0) == 0:
            raise ValueError("algorithm.eta=0: nothing would be learned; allowed: eta > 0")

    def factors(self, combined: Message) -> Tensor:
        """Return η ‖w_k‖ / ‖ḡ_k‖."""
        weights, gradients = self.norms(self.w), self.gradient_norms(combined)
        # eq. 4.3: γ_k / γ_scale = η ‖w_k‖ / (‖ḡ_k‖ + λ ‖w_k‖)
        factors = self.eta * weights / gradients.add(weights, alpha=self.weight_decay)
        # 1 where a norm is 0, as at a layer's start from zeros: 0 would freeze it, and 0/0 is no number
        return torch.where((weights > 0) & (gradients > 0), factors, 1.0)

    def gradient_norms(self, combined: Message) -> Tensor:
        """Return ‖ḡ_k‖, (layers,)."""
        return self.norms(combined["g"])
