"""GPipe: a synchronous pipeline over micro-batches, with a flush before each update.

Each batch is cut into m micro-batches that follow each other through the K modules. All of them use the same weights,
and their gradients are added up, so this is mini-batch SGD:

    g_k^t = Σ_i (b_i/B) ∂f_i(w^t)/∂w_k,   w_k^{t+1} = w_k^t − γ_t g_k^t

The modules are idle while the pipeline fills and empties: of an iteration's time a share of (K − 1)/(m + K − 1) if they
are equal, whatever the order.

    order: gpipe  all micro-batches forward, then all backward: a module holds the activations of all m
           1f1b   K − k forward, then one forward and one backward in turn: it holds those of K − k + 1 at most
                  (PipeDream-Flush, Narayanan et al. 2021)

With one module this is SGD with `run.micro_batch` to the bit, with one micro-batch back-propagation (`bp`), in both
cases unless the network drops units.

Sources: Huang et al., "GPipe: Efficient training of giant neural networks using pipeline parallelism", NeurIPS 2019,
arXiv 1811.06965; Narayanan et al., "Memory-efficient pipeline-parallel DNN training", ICML 2021, arXiv 2006.09503. The
equations are second hand: written down from accounts of the papers. Batch norm sees a micro-batch at a time; its
running statistics learn of a batch once, by the mean of the micro-batches' statistics. Deviation: nothing is recomputed
in the backward pass, and it takes micro-batches in their own order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from algorithms.base import Step, one_of
from algorithms.micro_batches import MicroBatches, order_1f1b
from algorithms.pipeline import Features, Stage, StageInfo


@dataclass(kw_only=True, eq=False)
class GPipe(MicroBatches):
    """One module of GPipe; the other arguments are those of `MicroBatches`.

    Args:
        order: "gpipe" or "1f1b".

    Raises:
        ValueError: an argument is out of range.
    """

    locked: ClassVar[bool] = True

    order: str = "gpipe"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("order", self.order, ("gpipe", "1f1b"))

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        self.done = 0

    def pass_order(self) -> list[str]:
        """See `Pipeline.pass_order`."""
        return list(order_1f1b(self.micro_batches, self.delay if self.order == "1f1b" else self.micro_batches))

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Run a micro-batch forward, and record it on a tape."""
        return self.play(stage, features, self.w)

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Add a micro-batch's gradient; after the last one, update."""
        below = self.play_back(delta)
        self.done += 1
        if self.done == self.micro_batches:
            self.update(step)
            self.done = 0
        return below
