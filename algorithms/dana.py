"""DANA: asynchronous SGD with a momentum for each worker, whose workers are sent where all momenta lead.

    push of g by worker i:    v_i ← γ v_i + g,    θ ← θ − η v_i
    pull by worker i:         send θ̂ = θ − η γ Σ_j v_j

      DANA-Zero   as above
      DANA-DC     with g + λ g ⊙ g ⊙ (θ − θ̂_i) in place of g,  θ̂_i being what worker i was sent
      DANA-Slim   the worker keeps v_i: v_i ← γ v_i + g, and pushes γ v_i + g; the server is that of ASGD, on Θ = θ̂

Source: Hakimi, Barkai, Gabel, Schuster, "Taming Momentum in a Distributed Asynchronous Environment", 2019 (arXiv
1907.11612). The updates are second hand: written down from accounts of the paper, whose numbers of algorithms and
equations are therefore not given.

Σ_j v_j is kept: v_i is taken out of it before it changes, and put back. With one worker the sum is v_1 to the bit, and
DANA-Zero is Nesterov's accelerated gradient in its textbook form: the gradient at θ − η γ v. What is sent then takes
the steps of `torch.optim.SGD` with Nesterov momentum, to rounding. γ=0 is ASGD, and λ=0 makes DANA-DC DANA-Zero, both
to the bit. DANA-Slim sends what DANA-Zero sends as long as η stays the same, to rounding, with nothing for each worker
on the server; one worker is Nesterov momentum as `torch.optim.SGD` has it, to the bit.

Deviations: weight decay, which the accounts do not place, is added by the server at its current θ, outside the λ term;
a lost worker's v_i leaves the sum. η of θ̂ is the schedule's learning rate at the pull. θ, not θ̂, is evaluated; of
DANA-Slim Θ, which is all that it has. There the worker adds weight decay, at the weights that it pulled, before the
momentum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algorithms.asgd import OwnMomentumASGD
from algorithms.base import Batch, Layout, Message, Oracle, Step, Worker, in_range, zeros
from algorithms.blockwise import BlockwiseUpdate


@dataclass(kw_only=True, eq=False)
class DANAZero(OwnMomentumASGD):
    """DANA-Zero; `momentum` is γ, and `weight_decay` is that of `MomentumOptions`.

    Raises:
        ValueError: an argument is out of range.
    """

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; all v_i start at zero."""
        super().start(w, workers, compiled)
        self.v = zeros(workers, w.numel(), like=w)
        self.total = zeros(w.numel(), like=w)
        self.ahead = zeros(w.numel(), like=w)
        self.lr = 0.0

    def announce(self, step: Step) -> None:
        """See `ParameterServer.announce`."""
        self.lr = step.lr

    def pull(self, worker: int) -> Message:
        """Send θ̂."""
        return {"w": self.look_ahead(self.ahead)}

    def look_ahead(self, out: Tensor) -> Tensor:
        """Write θ̂ to `out` (n,), and return it."""
        # θ̂ = θ − η γ Σ_j v_j
        return torch.add(self.w, self.total, alpha=-self.lr * self.momentum, out=out)

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take one step along the worker's momentum."""
        assert self.v is not None
        operands = self.operands(worker)
        self.update_blockwise(self.w, message["g"], *operands, self.v[worker], self.total, lr=step.lr)

    def operands(self, worker: int) -> list[Tensor]:
        """Return what `update` takes between g and v_i for a push of `worker`."""
        return []

    def update(self, w: Tensor, g: Tensor, *others: Any, lr: float) -> None:
        """Apply one pushed gradient to a block: w, g, v_i, the sum, then two blocks of scratch."""
        v, total, s, _ = others
        d = torch.add(g, w, alpha=self.weight_decay, out=s) if self.weight_decay else g
        self.step_along(w, d, v, total, lr=lr)

    def step_along(self, w: Tensor, d: Tensor, v: Tensor, total: Tensor, *, lr: float) -> None:
        """Take a block's step with direction `d` for g."""
        # Σ_j v_j without v_i: with one worker exactly zero
        total.sub_(v)
        # v_i ← γ v_i + g
        v.mul_(self.momentum).add_(d)
        # Σ_j v_j
        total.add_(v)
        # θ ← θ − η v_i
        w.add_(v, alpha=-lr)

    def lost(self, worker: int) -> None:
        """Take v_i out of the sum: nobody will make it smaller any more."""
        assert self.v is not None
        self.total.sub_(self.v[worker])
        self.v[worker].zero_()

    def state(self) -> Message:
        """Return `w`, the momenta `v` (workers, n) and their sum `total`."""
        return super().state() | {"total": self.total}


@dataclass(kw_only=True, eq=False)
class DANADC(DANAZero):
    """DANA-DC; `momentum` is γ, and `weight_decay` is that of `MomentumOptions`.

    Args:
        lambda0: λ ≥ 0 of the delay compensation.

    Raises:
        ValueError: an argument is out of range.
    """

    lambda0: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("lambda0", self.lambda0, 0)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; θ̂_i ← θ_0 for every worker."""
        super().start(w, workers, compiled)
        self.bak = w.expand(workers, -1).clone()

    def pull(self, worker: int) -> Message:
        """Send θ̂, and keep it as θ̂_i."""
        return {"w": self.look_ahead(self.bak[worker])}

    def sent(self, worker: int) -> Message:
        """Return θ̂_i."""
        return {"w": self.bak[worker]}

    def operands(self, worker: int) -> list[Tensor]:
        """Return θ̂_i."""
        return [self.bak[worker]]

    def update(self, w: Tensor, g: Tensor, *others: Any, lr: float) -> None:
        """Apply one pushed gradient to a block: w, g, θ̂_i, v_i, the sum, then two blocks of scratch."""
        bak, v, total, s, _ = others
        # d = g + λ g ⊙ g ⊙ (θ − θ̂_i)
        torch.sub(w, bak, out=s).mul_(g)
        d = torch.addcmul(g, s, g, value=self.lambda0, out=s)
        # the l2 term, outside the compensation
        if self.weight_decay:
            d.add_(w, alpha=self.weight_decay)
        self.step_along(w, d, v, total, lr=lr)

    def state(self) -> Message:
        """Return DANA-Zero's tensors, and what was sent, `bak` (workers, n)."""
        return super().state() | {"bak": self.bak}


class SlimWorker(Worker):
    """The worker of DANA-Slim, which keeps v_i.

    Args:
        momentum: γ.
        weight_decay: λ of the l2 term.
    """

    interchangeable = True

    def __init__(self, momentum: float, weight_decay: float) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=0)

    def keep(self, state: Message) -> None:
        """Take over v_i."""
        self.v = state["v"]

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Take the gradient into v_i, and return γ v_i + g."""
        g = oracle.gradient(pulled["w"], batch)
        self.update_blockwise(g, pulled["w"], self.v)
        return {"g": g}

    def update(self, g: Tensor, w: Tensor, v: Tensor) -> None:
        """Do so for a block, in place of the gradient."""
        if self.weight_decay:
            g.add_(w, alpha=self.weight_decay)
        # v_i ← γ v_i + g
        v.mul_(self.momentum).add_(g)
        # γ v_i + g
        g.add_(v, alpha=self.momentum)


@dataclass(kw_only=True, eq=False)
class DANASlim(OwnMomentumASGD):
    """DANA-Slim; `momentum` is γ, and `weight_decay` is that of `MomentumOptions`, both on the workers.

    Raises:
        ValueError: an argument is out of range.
    """

    def layout(self, n: int) -> Layout:
        """Return ASGD's messages, and v_i, which a worker keeps."""
        return Layout(pull={"w": n}, push={"g": n}, state={"v": n})

    def update(self, w: Tensor, g: Tensor, *others: Any, lr: float) -> None:
        """Apply what was pushed to a block."""
        # Θ ← Θ − η (γ v_i + g)
        w.add_(g, alpha=-lr)

    def worker(self, worker: int) -> Worker:
        """See `SlimWorker`."""
        return SlimWorker(self.momentum, self.weight_decay)
