"""SMEGA2: asynchronous SGD with one momentum, which changes once for N gradients, and is looked ahead along.

    push of g:    G ← G + g,    θ ← θ − η (g + γ m),    c ← (c + 1) mod N
                  if c = 0:  m ← γ m + G / N,  G ← 0
    pull:         send θ − η γ ((N + c (γ − 1)) m + (c / N) G)

N is the number of workers.

Source: Cohen, Hakimi, Schuster, "SMEGA2: Distributed Asynchronous Deep Neural Network Training With a Single Momentum
Buffer", ICPP 2022 (doi 10.1145/3545008.3545010), as the authors' own code computes it (github.com/rafi-cohen/SMEGA2,
`smega2.py`: `step`, and `estimate` in its advanced form). The paper itself was not at hand, so its numbers of
equations are not given.

With one worker this is Nesterov's accelerated gradient in its textbook form, m being the velocity. γ=0 is ASGD, to the
bit.

Deviations: the authors' dampening is not here (it is 0 by default). Weight decay is added to g at the server's current
θ, as in their code, whose master has these weights when it steps. η of what is sent is the schedule's learning rate at
the pull. N stays what it was when workers are lost. θ is evaluated, not what is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.asgd import OwnMomentumASGD
from algorithms.base import Message, Step, zeros
from algorithms.blockwise import BlockwiseUpdate


@dataclass(kw_only=True, eq=False)
class SMEGA2(OwnMomentumASGD):
    """SMEGA2; `momentum` is γ, and `weight_decay` is that of `MomentumOptions`.

    Raises:
        ValueError: an argument is out of range.
    """

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; m, G and c start at zero."""
        super().start(w, workers, compiled)
        self.turn_blockwise = BlockwiseUpdate(self.turn, scratch=0, compiled=compiled)
        self.m = zeros(w.numel(), like=w)
        self.total = zeros(w.numel(), like=w)
        # On the CPU, where the host may look at it without waiting for a GPU.
        self.c = torch.zeros(1, dtype=torch.int64)
        self.ahead = zeros(w.numel(), like=w)
        self.lr = 0.0

    def announce(self, step: Step) -> None:
        """See `ParameterServer.announce`."""
        self.lr = step.lr

    def pull(self, worker: int) -> Message:
        """Send where N more gradients like those so far would lead."""
        c, n, along = self.c.item(), self.workers, self.lr * self.momentum
        # θ − η γ ((c / N) G + (N + c (γ − 1)) m)
        torch.add(self.w, self.total, alpha=-along * c / n, out=self.ahead)
        return {"w": self.ahead.add_(self.m, alpha=-along * (n + c * (self.momentum - 1)))}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take one step along the gradient and the momentum, and with the last of N gradients change the momentum."""
        self.update_blockwise(self.w, message["g"], self.m, self.total, lr=step.lr)
        # c ← (c + 1) mod N
        self.c.add_(1).remainder_(self.workers)
        if self.c.item() == 0:
            self.turn_blockwise(self.m, self.total)

    def update(self, w: Tensor, g: Tensor, m: Tensor, total: Tensor, s: Tensor, q: Tensor, *, lr: float) -> None:  # type: ignore[override]
        """Apply one pushed gradient to a block; `s` and `q` are scratch, `g` is left as it is."""
        d = torch.add(g, w, alpha=self.weight_decay, out=s) if self.weight_decay else g
        # G ← G + g
        total.add_(d)
        # θ ← θ − η (g + γ m)
        w.add_(torch.add(d, m, alpha=self.momentum, out=q), alpha=-lr)

    def turn(self, m: Tensor, total: Tensor) -> None:
        """Change a block of the momentum, after N gradients."""
        # m ← γ m + G / N
        m.mul_(self.momentum).add_(total, alpha=1 / self.workers)
        # G ← 0
        total.zero_()

    def state(self) -> Message:
        """Return `w`, `m`, G as `total`, and `c`."""
        return super().state() | {"m": self.m, "total": self.total, "c": self.c}
