"""Shared-AsySVRG: asynchronous SGD with variance reduction on shared memory, no lock.

    for s = 0, 1, ...                                                                        (algorithm 1)
        w̃ ← w;    compute ∇f(w̃) = 1/n Σ_i ∇f_i(w̃), each worker on its shard
        m times, in parallel:
            v ← 1/|I_t| Σ_{i ∈ I_t} (∇f_i(ŵ) − ∇f_i(w̃) + ∇f(w̃))                              (eq. 2.5)
            (w)_k ← (w)_k − η (v)_k    for random coordinates k                               (eq. 2.4)

Source: Huo, PhD thesis 2020, algorithm 1 and section 2.5.1, which writes 1,000 random coordinates at a time since one
would be "too time consuming", and whose SGD_SVRG starts from a model that SGD has trained for some epochs.

f contains the l2 term: ∇f_i(w) is the loss' gradient plus `weight_decay · w`. In v the l2 terms at w̃ cancel, and
`weight_decay · ŵ` remains. With one worker this is sequential SVRG (`algorithms.asysvrg`), to the bit.

Decided here, since the thesis does not say: the two gradients of a batch see the same augmentation and dropout;
networks with batch norm, where there is no ∇f_i of a sample alone, are refused. Mini-batches are handed out from one
permutation of the samples an epoch, as everywhere in dcrun, or with `replacement` drawn independently ("randomly
select"). SGD's epochs at the start are lock-free too, and write as many coordinates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from algorithms.base import Batch, Message, Oracle, Step, in_range, zeros
from algorithms.outer_loop import OuterLoop
from algorithms.shared_memory import SharedMemory, check_coordinates, draw_coordinates


class SharedAsySVRG(OuterLoop, SharedMemory):
    """Algorithm 1: lock-free updates between snapshots.

    Args:
        inner: m, updates from one snapshot to the next.
        coordinates: how many random coordinates each update writes; null for all.
        weight_decay: coefficient C of the l2 term of f.
        sgd_epochs: effective passes of plain SGD at the start, see `OuterLoop`.
        sgd_lr: the learning rate of these passes.
        sgd_decay: how fast it falls from pass to pass.
        replacement: whether the samples of a batch are drawn independently, so that one may come twice.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        inner: int = 1000,
        coordinates: int | None = None,
        weight_decay: float = 0.0,
        sgd_epochs: float = 0.0,
        sgd_lr: float = 0.1,
        sgd_decay: float = 0.0,
        replacement: bool = False,
    ) -> None:
        super().__init__(
            inner=inner, sgd_epochs=sgd_epochs, sgd_lr=sgd_lr, sgd_decay=sgd_decay, replacement=replacement
        )
        self.count = check_coordinates(coordinates)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)

    def start(self, w: Tensor, workers: int) -> None:
        """See `SharedMemory.start`."""
        super().start(w, workers)
        self.w_tilde = zeros(w.numel(), like=w)
        self.full = zeros(w.numel(), like=w)
        self.v = zeros(w.numel(), like=w)

    def snapshot(self, gradient: Tensor) -> None:
        """Take w̃ ← w and its full gradient, that of the losses alone."""
        self.w_tilde.copy_(self.w)
        self.full.copy_(gradient)

    def direction(self, oracle: Oracle, read: Tensor, batch: Batch) -> Tensor:
        """Return the variance-reduced gradient at ŵ; in SGD's epochs the gradient."""
        if self.is_sgd(batch.number):
            return self._decayed(oracle.gradient(read, batch), read)
        # eq. 2.5: v = ∇f(w̃) − ∇f_I(w̃) + ∇f_I(ŵ). The gradient at ŵ comes after that at w̃, for the oracle reuses its
        # buffer, and the loss of the last one is the step's. The operations are those of `algorithms.asysvrg`, in their
        # order, so that one worker has its bits.
        torch.sub(self.full, oracle.reference_gradient(self.w_tilde, batch), out=self.v)
        return self._decayed(self.v.add_(oracle.gradient(read, batch)), read)

    def _decayed(self, v: Tensor, read: Tensor) -> Tensor:
        return v.add_(read, alpha=self.weight_decay) if self.weight_decay else v

    def rate(self, batch: Batch, step: Step) -> float:
        """Return η: the schedule's, in SGD's epochs α / (1 + s)^β."""
        return self.sgd_rate(batch.number) if self.is_sgd(batch.number) else step.lr

    def coordinates(self, n: int, generator: np.random.Generator) -> Tensor | None:
        """Return the coordinates k_t of one update, drawn at random, or None for all."""
        return None if self.count is None else draw_coordinates(self.count, n, generator)

    def snapshots(self, n: int) -> dict[str, int]:
        """Return w̃ and ∇f(w̃)."""
        return {"w_tilde": n, "gradient": n}

    def state(self) -> Message:
        """Return `w`, the snapshot `w_tilde`, and `gradient`, that of the losses there."""
        return {"w": self.w, "w_tilde": self.w_tilde, "gradient": self.full}

    def load_state(self, state: Message) -> None:
        """See `Stateful.load_state`; older files have `full`, the gradient with the l2 term of the snapshot in it."""
        if "full" in state:
            rest = {name: tensor for name, tensor in state.items() if name != "full"}
            state = {**rest, "gradient": torch.sub(state["full"], state["w_tilde"], alpha=self.weight_decay)}
        super().load_state(state)
