"""The last lines of every first-order update: heavy-ball and Nesterov momentum, then the step.

    v ← μ v + d,    w ← w − η v            heavy ball
    v ← μ v + d,    w ← w − η (d + μ v)    Nesterov

The operations and their order are those of `torch.optim.SGD`, so that results agree with it to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.base import flag


def check_nesterov(nesterov: bool, momentum: float) -> bool:
    """Check that Nesterov's form is asked for with momentum only, and return `nesterov`.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if flag("nesterov", nesterov) and momentum == 0:
        raise ValueError("algorithm.nesterov=true: needs momentum; allowed: algorithm.momentum > 0")
    return nesterov


def sgd_step(w: Tensor, d: Tensor, v: Tensor | None, s: Tensor, *, lr: float, momentum: float, nesterov: bool) -> None:
    """Step `w` along the direction `d`, all flat and of equal length.

    Args:
        w: weights, updated in place.
        d: direction; left as it is.
        v: velocity, updated in place; None without momentum.
        s: scratch, written to with Nesterov momentum only; must not be `d`.
        lr: learning rate η.
        momentum: μ.
        nesterov: whether to look ahead by μ v.
    """
    if v is not None:
        v.mul_(momentum).add_(d)
        d = torch.add(d, v, alpha=momentum, out=s) if nesterov else v
    w.add_(d, alpha=-lr)
