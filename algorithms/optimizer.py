"""How a module of a pipeline follows its gradient: SGD with momentum, or Adam.

    sgd:   torch.optim.SGD's update, see `algorithms.momentum`                                 (eq. 5.9, 6.2)
    adam:  m ← β1 m + (1 − β1) g                                                               (algorithm 10, line 4)
           u ← β2 u + (1 − β2) g ⊙ g                                                           (line 5)
           w ← w − γ m/(1 − β1^t) / (√(u/(1 − β2^t)) + ε)                                      (lines 6 to 8)

t counts the module's own updates. Both are PyTorch's optimizers to the bit.

Source: Huo, PhD thesis 2020, algorithms 9 and 10. Deviation: `weight_decay · w` is added to the gradient, in Adam too
(the thesis has it in its experiments alone and does not say where).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from algorithms.base import Message, in_range, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import check_nesterov, sgd_step

ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


class Optimizer:
    """An optimizer of one flat vector.

    Args:
        optimizer: "sgd" or "adam".
        momentum: heavy-ball coefficient of SGD in [0, 1).
        nesterov: use Nesterov's form of it.
        weight_decay: coefficient of the l2 term.
        beta1: Adam's β1 in [0, 1); None takes 0.9 with Adam.
        beta2: Adam's β2 in [0, 1); None takes 0.999.
        epsilon: Adam's ε; None takes 1e-8.

    Raises:
        ValueError: an argument is out of range, or the optimizer has none of that name.
    """

    def __init__(
        self,
        *,
        optimizer: str,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        beta1: float | None = None,
        beta2: float | None = None,
        epsilon: float | None = None,
    ) -> None:
        self.adam = one_of("optimizer", optimizer, ("sgd", "adam")) == "adam"
        self.momentum = in_range("momentum", momentum, 0, 1, open_high=True)
        self.nesterov = check_nesterov(nesterov, momentum)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)
        if self.adam and momentum:
            raise ValueError(f"algorithm.momentum={momentum}: adam has none; allowed: 0, or optimizer=sgd")
        given = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
        for name, value in given.items():
            if value is not None and not self.adam:
                raise ValueError(f"algorithm.{name}={value}: sgd has none; allowed: null, or optimizer=adam")
        values = ADAM | {name: value for name, value in given.items() if value is not None}
        self.beta1 = in_range("beta1", values["beta1"], 0, 1, open_high=True)
        self.beta2 = in_range("beta2", values["beta2"], 0, 1, open_high=True)
        self.epsilon = in_range("epsilon", values["epsilon"], 0)

    def start(self, w: Tensor) -> None:
        """Allocate the state for the flat vector `w`."""
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.m = zeros(w.numel(), like=w) if self.adam else None
        self.u = zeros(w.numel(), like=w) if self.adam else None
        self.t = torch.zeros((), dtype=torch.int64)
        self.update_blockwise = BlockwiseUpdate(self._adam if self.adam else self._sgd, scratch=1)

    def __call__(self, w: Tensor, g: Tensor, lr: float) -> None:
        """Update `w` along `g`, which is overwritten."""
        if self.weight_decay:
            g.add_(w, alpha=self.weight_decay)
        if not self.adam:
            self.update_blockwise(w, g, self.v, lr=lr)
            return
        self.t += 1
        t = int(self.t)
        rate, root = lr / (1 - self.beta1**t), math.sqrt(1 - self.beta2**t)
        self.update_blockwise(w, g, self.m, self.u, rate=rate, root=root)

    def _sgd(self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, *, lr: float) -> None:
        sgd_step(w, g, v, s, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def _adam(self, w: Tensor, g: Tensor, m: Tensor, u: Tensor, s: Tensor, *, rate: float, root: float) -> None:
        m.lerp_(g, 1 - self.beta1)  # line 4
        u.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)  # line 5
        torch.sqrt(u, out=s).div_(root).add_(self.epsilon)  # line 7
        w.addcdiv_(m, s, value=-rate)  # lines 6 and 8

    def state(self) -> Message:
        """The velocity `v` of SGD with momentum; `m`, `u` and `t` of Adam."""
        if self.m is not None and self.u is not None:
            return {"m": self.m, "u": self.u, "t": self.t}
        return {} if self.v is None else {"v": self.v}
