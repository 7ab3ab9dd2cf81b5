"""Distributed-AsySVRG: asynchronous SGD with variance reduction on a parameter server.

    every m pushes:      w~ ← w;  ∇f(w~) = (1/n) Σ_k ∇^k f(w~), ∇^k the sum over worker k's shard     (alg. 2, alg. 3)
    push of v:           v = (1/|I|) Σ_{i∈I} (∇f_i(ŵ) − ∇f_i(w~) + ∇f(w~))                            (eq. 2.33)
                         w ← w − η v                                                                   (eq. 2.32)

Source: Huo, PhD thesis 2020, section 2.4, algorithms 2 and 3; SGD_SVRG is that of section 2.5.1. ŵ is what the worker
pulled, τ updates ago. The run begins with a full gradient. With one worker it is sequential SVRG (Johnson and Zhang,
NIPS 2013), whose snapshot is the last iterate of the inner loop.

f_i(w) = loss of sample i + C/2 ‖w‖²: C is `weight_decay`, a part of every gradient. In v the l2 terms of the batch at
w~ and of the full gradient cancel, and C ŵ remains: the worker adds it, at what it pulled.

Which samples I has: by default all n samples come in passes, without replacement, and each batch of a pass goes to the
worker that asks next. Algorithm 3 draws I from {1 … n_k}, the worker's own n_k samples, at random: `own_shard`, with
`replacement` independent draws, else distinct ones. The mean of v over I is ∇f^k(ŵ) − ∇f^k(w~) + ∇f(w~) then, f^k the
mean of the worker's f_i; only over workers that push equally often is it ∇f(ŵ). `replacement` alone draws from all n.

Decided here, since the thesis does not say: shards are contiguous. Both gradients of a batch see the same augmentation
and dropout; the full gradient has draws of its own. A batch's effective passes count both gradients, a full gradient
counts one pass. Networks with batch norm are refused: ∇f_i is not defined there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from algorithms.base import Batch, Layout, Message, Oracle, ParameterServer, Round, Step, Worker, flag, in_range, zeros
from algorithms.outer_loop import OuterLoop

SNAPSHOT, FULL = range(2)
"""The rounds of a barrier: w~ down and the shards' gradients up; then ∇f(w~) down."""


class VarianceReducedWorker(Worker):
    """Algorithm 3; before the first snapshot its message is the plain gradient, that of SGD.

    Args:
        weight_decay: C.
    """

    # w~ and ∇f(w~) were broadcast to all.
    interchangeable = True

    def __init__(self, weight_decay: float) -> None:
        self.weight_decay = weight_decay
        self.snapshot: Tensor | None = None
        self.full = torch.empty(0)
        self.v = torch.empty(0)

    def receive(self, number: int, message: Message) -> None:
        """Keep w~, and in the second round ∇f(w~)."""
        if number == SNAPSHOT:
            self.snapshot = message["w"].clone()
        else:
            self.full = message["g"].clone()

    def answer(self, oracle: Oracle, number: int, shard: Batch) -> Message:
        """Return ∇^k f(w~), the sum over a shard, without the l2 term."""
        assert self.snapshot is not None
        return {"g": oracle.gradient_sum(self.snapshot, shard)}

    def restore(self, message: Message) -> None:
        """Take w~ and ∇f(w~) back, if the saved run had a snapshot."""
        self.snapshot = message["snapshot"].clone() if message["begun"] else None
        self.full = message["full"].clone()

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Return v at the pulled weights."""
        w = pulled["w"]
        if self.snapshot is None:
            return {"v": self._decayed(oracle.gradient(w, batch), w)}
        g = oracle.reference_gradient(self.snapshot, batch)
        if self.v.numel() != g.numel():
            self.v = torch.empty_like(g)
        if self.full.device != g.device:
            self.snapshot, self.full = self.snapshot.to(g.device), self.full.to(g.device)
        # eq. 2.33: v = ∇f(w~) − ∇f_I(w~) + ∇f_I(ŵ); the gradient at ŵ comes last, for the oracle reuses its buffer
        torch.sub(self.full, g, out=self.v)
        self.v.add_(oracle.gradient(w, batch))
        return {"v": self._decayed(self.v, w)}

    def _decayed(self, v: Tensor, w: Tensor) -> Tensor:
        return v.add_(w.to(v.device), alpha=self.weight_decay) if self.weight_decay else v


class AsySVRG(OuterLoop, ParameterServer):
    """Distributed-AsySVRG.

    Args:
        inner: m, pushes from one snapshot to the next.
        weight_decay: C ≥ 0, coefficient of the l2 term of every f_i.
        sgd_epochs: effective passes of plain SGD at the start, see `OuterLoop`.
        sgd_lr: the learning rate of these passes.
        sgd_decay: how fast it falls from pass to pass.
        own_shard: whether a worker's batches are drawn from its own shard of the training set, as in algorithm 3.
        replacement: whether the samples of a batch are drawn independently, so that one may come twice.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        inner: int = 1000,
        weight_decay: float = 0.0,
        sgd_epochs: float = 0.0,
        sgd_lr: float = 0.1,
        sgd_decay: float = 0.0,
        own_shard: bool = False,
        replacement: bool = False,
    ) -> None:
        super().__init__(
            inner=inner, sgd_epochs=sgd_epochs, sgd_lr=sgd_lr, sgd_decay=sgd_decay, replacement=replacement
        )
        self.own_shard = flag("own_shard", own_shard)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`."""
        self.w = w
        self.workers = workers
        self.snapshot = zeros(w.numel(), like=w)
        self.full = zeros(w.numel(), like=w)
        self.updates = torch.zeros(1, dtype=torch.int64)
        self.begun = zeros(1, like=w)

    def layout(self, n: int) -> Layout:
        """Return the weights down, v up."""
        return Layout(pull={"w": n}, push={"v": n})

    def pull(self, worker: int) -> Message:
        """Send w_t."""
        return {"w": self.w}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Update the weights: w ← w − η v."""
        lr = step.lr if self.begun else self.sgd_rate(int(self.updates))
        # eq. 2.32
        self.w.add_(message["v"], alpha=-lr)
        self.updates += 1

    def rounds(self, n: int) -> list[Round]:
        """See `SNAPSHOT`, `FULL`."""
        return [Round({"w": n}, {"g": n}), Round({"g": n}, {})]

    def broadcast(self, number: int) -> Message:
        """Return w~ ← w in the first round, ∇f(w~) in the second."""
        if number == FULL:
            return {"g": self.full}
        self.snapshot.copy_(self.w)
        return {"w": self.snapshot}

    def collect(self, number: int, total: Message) -> None:
        """Compute ∇f(w~) = (1/n) Σ_k ∇^k f(w~)."""
        torch.div(total["g"], self.samples, out=self.full)
        self.begun.fill_(1)

    def restoring(self, n: int) -> dict[str, int]:
        """Return w~, ∇f(w~), and whether there are any yet."""
        return {"snapshot": n, "full": n, "begun": 1}

    def restore(self, worker: int) -> Message:
        """See `restoring`."""
        return {"snapshot": self.snapshot, "full": self.full, "begun": self.begun}

    def worker(self, worker: int) -> Worker:
        """See `VarianceReducedWorker`."""
        return VarianceReducedWorker(self.weight_decay)

    def state(self) -> Message:
        """Return `w`, w~ and ∇f(w~), the number of updates, and whether SVRG has begun."""
        kept = {"snapshot": self.snapshot, "full": self.full, "updates": self.updates, "begun": self.begun}
        return {"w": self.w} | kept


class SVRG(AsySVRG):
    """Sequential SVRG: Distributed-AsySVRG with one worker; the arguments are those of `AsySVRG`."""

    default_workers: ClassVar[int] = 1
    max_workers: ClassVar[int | None] = 1
