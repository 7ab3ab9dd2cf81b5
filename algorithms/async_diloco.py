"""Asynchronous DiLoCo: asynchronous local SGD, whose server takes momentum in only once in N pushes (delayed Nesterov).

    worker w:      θ_w ← θ as pulled;  H_w times θ_w ← InnerOpt(θ_w, ∇f_w(θ_w));  pushes g = θ_pulled − θ_w
    push t of g:   Δ ← Δ + g
                   if N divides t + 1:  m ← β m + Δ / N,  Δ ← 0
                                        θ ← θ − ε (g / N + β m)
                   otherwise:           θ ← θ − ε g / N
    DyLU:          H_w = ⌊H v_w / max_u v_u⌋      dynamic local updates: slow workers take fewer steps

Source: Liu et al., "Asynchronous Local-SGD Training for Language Modeling", 2024 (arXiv 2401.09135). The update is
second hand: written down from accounts of the paper, whose numbers of algorithms and lines are therefore not given. Its
momentum activation c is 0, as it is by default there. Its grace period, for which a server waits for more pushes before
it answers, is not here.

With N = 1 and one worker it is DiLoCo, Nesterov's momentum on the g, to the bit while the learning rate stays the same.
With plain SGD inside, H = 1, β = 0, ε = N and no weight decay it is ASGD, to rounding.

Decided here, where the paper is silent: the schedule's learning rate is InnerOpt's, at the pull, for all steps until
the push. The states of the inner optimizers stay with their workers. H_w is at least 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from algorithms.base import (
    Batch,
    Field,
    Layout,
    Message,
    Oracle,
    ParameterServer,
    Step,
    Worker,
    in_range,
    integer,
    zeros,
)
from algorithms.blockwise import BlockwiseUpdate
from algorithms.diloco import DiLoCoOptions
from algorithms.optimizer import Optimizer, OptimizerOptions


class LocalWorker(Worker):
    """A worker that pushes what its local steps changed; it keeps the state of InnerOpt.

    Args:
        options: InnerOpt's.
    """

    interchangeable = True

    def __init__(self, options: OptimizerOptions) -> None:
        self.inner_step = Optimizer(options)

    def keep(self, state: Message) -> None:
        """Take over the tensors of InnerOpt."""
        self.inner_step.keep(state)

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Take a step of InnerOpt; return the change since the pull."""
        if batch.step == 0:
            # θ_w ← θ
            self.w, self.g = pulled["w"].clone(), torch.empty_like(pulled["w"])
        # θ_w ← InnerOpt(θ_w, ∇f_w(θ_w))
        self.inner_step(self.w, oracle.gradient(self.w, batch), pulled["lr"].item())
        # g = θ_pulled − θ_w
        return {"g": torch.sub(pulled["w"], self.w, out=self.g)}


@dataclass(kw_only=True, eq=False)
class AsyncDiLoCo(DiLoCoOptions, ParameterServer):
    """Asynchronous DiLoCo with delayed Nesterov; the other arguments are those of `DiLoCoOptions`.

    Args:
        every: N ≥ 1, pushes from one step with momentum to the next; None for as many as there are workers.
        speeds: v_w > 0 of every worker, for dynamic local updates; None for H steps of each.

    Raises:
        ValueError: an argument is out of range.
    """

    every: int | None = None
    speeds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is not None:
            in_range("every", integer("every", self.every), 1)
        if isinstance(self.speeds, str) or not isinstance(self.speeds, Sequence | None):
            what = "is not a list; allowed: a number for each worker, or null"
            raise ValueError(f"algorithm.speeds={self.speeds}: {what}")
        for speed in self.speeds or ():
            if isinstance(speed, int | float) and speed <= 0:
                raise ValueError(f"algorithm.speeds={speed:g}: such a worker takes no steps; allowed: speeds > 0")
            in_range("speeds", speed, 0)

    def check_workers(self, workers: int) -> None:
        """Refuse speeds that are not of all workers."""
        if self.speeds is not None and len(self.speeds) != workers:
            what = f"is of {len(self.speeds)} workers, and cluster.workers={workers}"
            raise ValueError(f"algorithm.speeds={list(self.speeds)}: {what}; allowed: a number for each, or null")

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`."""
        self.w = w
        self.workers = workers
        self.n = workers if self.every is None else self.every
        self.m = zeros(w.numel(), like=w) if self.outer_momentum else None
        self.total = zeros(w.numel(), like=w)
        # On the CPU, where the host may look at them, and from where they are sent.
        self.t = torch.zeros(1, dtype=torch.int64)
        self.lr = torch.zeros(1, dtype=torch.float64)
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def layout(self, n: int) -> Layout:
        """Return θ and InnerOpt's learning rate down, g up; with the worker stays the state of InnerOpt."""
        return Layout(pull={"w": n, "lr": Field(1, torch.float64)}, push={"g": n}, state=Optimizer(self).fields(n))

    def steps(self, worker: int) -> int:
        """Return H_w."""
        if self.speeds is None:
            return self.period
        # In fractions, of the decimals that were given: 100 · 0.29 are 29 steps, and in floating point 28.
        speed, largest = Fraction(str(self.speeds[worker])), Fraction(str(max(self.speeds)))
        return max(1, int(self.period * speed / largest))

    def announce(self, step: Step) -> None:
        """See `ParameterServer.announce`."""
        self.lr.fill_(step.lr)

    def pull(self, worker: int) -> Message:
        """Send θ and the learning rate."""
        return {"w": self.w, "lr": self.lr}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take a step along g, with momentum if it is the last of N."""
        self.t += 1
        with_momentum = self.t.item() % self.n == 0
        self.update_blockwise(self.w, message["g"], self.total, self.m if with_momentum else None)
        if with_momentum:
            # Δ ← 0
            self.total.zero_()

    def update(self, w: Tensor, g: Tensor, total: Tensor, m: Tensor | None, s: Tensor, q: Tensor) -> None:
        """Take one step on a block, with momentum if `m` is there; `s` and `q` are scratch."""
        # Δ ← Δ + g
        total.add_(g)
        d = torch.div(g, self.n, out=s)
        if m is not None:
            # m ← β m + Δ / N
            m.mul_(self.outer_momentum).add_(torch.div(total, self.n, out=q))
            # g / N + β m
            d.add_(m, alpha=self.outer_momentum)
        # θ ← θ − ε (g / N + β m), or without m
        w.add_(d, alpha=-self.outer_lr)

    def worker(self, worker: int) -> Worker:
        """See `LocalWorker`."""
        return LocalWorker(self)

    def state(self) -> Message:
        """Return θ as `w`, m, Δ as `total`, and the number of pushes `t`."""
        return {"w": self.w, "total": self.total, "t": self.t} | ({} if self.m is None else {"m": self.m})
