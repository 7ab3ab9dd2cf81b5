"""SGD's options and its last lines: heavy-ball and Nesterov momentum, then the step along a direction d.

    v ← μ v + d,    w ← w − η v            heavy ball (`momentum`)
    v ← μ v + d,    w ← w − η (d + μ v)    Nesterov (`nesterov`)

The operations and their order are those of `torch.optim.SGD`, so that results agree with it to the bit. What d is made
of, and where weight decay is added, is the method's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.checks import flag, in_range


@dataclass(kw_only=True, eq=False)
class MomentumOptions:
    """The arguments of every method with momentum; a method that inherits from it takes them as its own.

    Args:
        momentum: coefficient μ in [0, 1).
        weight_decay: coefficient λ ≥ 0 of the l2 term (λ/2)‖w‖².

    Raises:
        ValueError: an argument is out of range.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        in_range("momentum", self.momentum, 0, 1, open_high=True)
        in_range("weight_decay", self.weight_decay, 0)


@dataclass(kw_only=True, eq=False)
class SGDOptions(MomentumOptions):
    """The arguments of every method that ends with a step of SGD; without momentum it keeps no velocity.

    Args:
        nesterov: use Nesterov's form of momentum instead of heavy-ball.

    Raises:
        ValueError: an argument is out of range.
    """

    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nesterov(self.nesterov, self.momentum)


def check_nesterov(nesterov: bool, momentum: float) -> None:
    """Check that Nesterov's form is asked for with momentum only.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if flag("nesterov", nesterov) and momentum == 0:
        raise ValueError("algorithm.nesterov=true: needs momentum; allowed: algorithm.momentum > 0")


def sgd_step(w: Tensor, d: Tensor, v: Tensor | None, s: Tensor, *, lr: float, momentum: float, nesterov: bool) -> None:
    """Step `w` along the direction `d`, all flat and of equal length.

    Args:
        w: weights, updated in place.
        d: direction; left as it is.
        v: velocity, updated in place; None without momentum.
        s: scratch, written to with Nesterov momentum only; must not be `d`.
        lr: learning rate η.
        momentum: μ.
        nesterov: whether to use Nesterov's form.
    """
    if v is not None:
        v.mul_(momentum).add_(d)
        d = torch.add(d, v, alpha=momentum, out=s) if nesterov else v
    # `alpha` and not a product beforehand: torch.optim.SGD rounds once here, and so do we.
    w.add_(d, alpha=-lr)
