"""What a module of a pipeline, or a worker in its local steps, does with its gradient: SGD with momentum, or Adam.

    sgd:   torch.optim.SGD's update, see `algorithms.momentum`                                 (eq. 5.9, 6.2)
    adam:  m ← β1 m + (1 − β1) g                                                               (algorithm 10, line 4)
           u ← β2 u + (1 − β2) g ⊙ g                                                           (line 5)
           w ← w − γ m/(1 − β1^t) / (√(u/(1 − β2^t)) + ε)                                      (lines 6 to 8)
    adamw: the same, after w ← (1 − γ λ) w

t counts the module's or the worker's own updates. All are PyTorch's optimizers to the bit.

Source: Huo, PhD thesis 2020, algorithms 9 and 10. Deviation: `weight_decay · w` is added to the gradient, with Adam too
(the thesis has it in its experiments alone and does not say where). AdamW's decay λ is apart from the gradient:
Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.base import Field, Fields, Message, in_range, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import SGDOptions, sgd_step

ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
"""Adam's values if none are given."""


@dataclass(kw_only=True, eq=False)
class OptimizerOptions(SGDOptions):
    """The arguments of methods that leave the choice of optimizer open; `momentum` and `nesterov` are SGD's alone.

    A method takes them as its own by inheriting from this class. Another optimizer adds its name to `optimizer` and its
    own keys here.

    Args:
        optimizer: "sgd", "adam" or "adamw".
        beta1: Adam's β1 in [0, 1); None takes 0.9 with Adam.
        beta2: Adam's β2 in [0, 1); None takes 0.999.
        epsilon: Adam's ε ≥ 0; None takes 1e-8.

    Raises:
        ValueError: an argument is out of range, or the optimizer does not have it.
    """

    optimizer: str = "sgd"
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        adam = one_of("optimizer", self.optimizer, ("sgd", "adam", "adamw")) != "sgd"
        if adam and self.momentum:
            what = f"{self.optimizer} does not use it"
            raise ValueError(f"algorithm.momentum={self.momentum}: {what}; allowed: 0, or optimizer=sgd")
        for name in ADAM:
            value = getattr(self, name)
            if value is None:
                continue
            if not adam:
                raise ValueError(
                    f"algorithm.{name}={value}: sgd does not use it; allowed: null, or optimizer=adam, adamw"
                )
            in_range(name, value, 0, float("inf") if name == "epsilon" else 1, open_high=name != "epsilon")


class Optimizer:
    """An optimizer of one flat vector.

    Args:
        options: which one, and its coefficients.
    """

    def __init__(self, options: OptimizerOptions) -> None:
        self.adam = options.optimizer != "sgd"
        self.decoupled = options.optimizer == "adamw"
        self.momentum = options.momentum
        self.nesterov = options.nesterov
        self.weight_decay = options.weight_decay
        given = {name: getattr(options, name) for name in ADAM}
        values = ADAM | {name: value for name, value in given.items() if value is not None}
        self.beta1, self.beta2, self.epsilon = values["beta1"], values["beta2"], values["epsilon"]

        self.update_blockwise = BlockwiseUpdate(self._adam if self.adam else self._sgd, scratch=1)

    def start(self, w: Tensor) -> None:
        """Allocate the state for the flat vector `w`."""
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.m = zeros(w.numel(), like=w) if self.adam else None
        self.u = zeros(w.numel(), like=w) if self.adam else None
        self.t = torch.zeros((), dtype=torch.int64)

    def fields(self, n: int) -> Fields:
        """Return the tensors of the state for `n` weights, for what a worker of a server keeps."""
        if self.adam:
            return {"m": n, "u": n, "t": Field(1, torch.int64)}
        return {"v": n} if self.momentum else {}

    def keep(self, state: Message) -> None:
        """Take over the tensors of `fields` in place of those that `start` allocates."""
        self.v, self.m, self.u = state.get("v"), state.get("m"), state.get("u")
        if self.adam:
            self.t = state["t"]

    def __call__(self, w: Tensor, g: Tensor, lr: float) -> None:
        """Update `w` along `g`, which is overwritten."""
        if self.weight_decay and self.decoupled:
            w.mul_(1 - lr * self.weight_decay)
        elif self.weight_decay:
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
        """Return the velocity `v` of SGD with momentum; `m`, `u` and `t` of Adam."""
        if self.m is not None and self.u is not None:
            return {"m": self.m, "u": self.u, "t": self.t}
        return {} if self.v is None else {"v": self.v}
