"""D-PSGD, decentralised parallel SGD: each worker averages its weights with those of its neighbours, and no others.

    each worker i, every step k:    g_{k,i} = ∇F_i(x_{k,i}; ξ_{k,i})
                                    x_{k+1/2,i} = Σ_j W_ij x_{k,j}
                                    x_{k+1,i} = x_{k+1/2,i} − γ g_{k,i}

Source: Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for Decentralized
Parallel Stochastic Gradient Descent", NeurIPS 2017 (arXiv 1705.09056), algorithm 1, written down from accounts of the
paper: numbers of its lines are therefore not given. γ is the schedule's learning rate; ξ a worker's share of the step's
samples; W the Metropolis weights of `graph`, see `algorithms.gossip_graph`.

The average needs no gradient, so the weights travel while it is computed. The last two lines can be exchanged, with the
same rate of convergence (`order=step_first`): then the neighbours' y = x_k − γ g_k are averaged, which travel after the
gradient.

With `step_first` on the complete graph, where W_ij = 1/M, it is Local SGD with τ = 1 to the bit: synchronous SGD, to
rounding. One worker is sequential SGD, to the bit, in both orders.

Decided here, where the paper is silent: momentum buffers and weight decay, of the gradient at x_k, are local; what is
evaluated is the mean of all workers' weights. As in `LocalSGD`, in an epoch's last step, whose shares may differ by one
sample, a gradient counts by its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from algorithms.base import Batch, Collective, CommunicationSchedule, Message, Oracle, Step, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.gossip_graph import check_graph, metropolis_weights
from algorithms.momentum import SGDOptions, sgd_step


@dataclass(kw_only=True, eq=False)
class DPSGD(SGDOptions, Collective):
    """D-PSGD; `momentum`, `nesterov` and `weight_decay`, of each worker's own steps, are those of `SGDOptions`.

    Args:
        graph: who averages with whom: "ring", "complete", "torus", "exponential", or edges as [[0, 1], [1, 2]].
        order: "average_first", algorithm 1, or "step_first".

    Raises:
        ValueError: an argument is out of range.
    """

    combine: ClassVar[Literal["mean", "gather", "mix"]] = "mix"

    graph: str | Sequence[Sequence[int]] = "ring"
    order: str = "average_first"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_graph(self.graph)
        self.early = one_of("order", self.order, ("average_first", "step_first")) == "average_first"

    def mixing(self, workers: int) -> Tensor:
        """Return W."""
        return metropolis_weights(self.graph, workers)

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        # The oracle's own vector is the next worker's too, in a simulation: kept from the gradient to the average.
        self.g = zeros(w.numel(), like=w) if self.early else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=1, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """Return the weights."""
        return {"x": n}

    def contribute(self, batch: Batch) -> Message:
        """Return x_k."""
        return {"x": self.w}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Compute the gradient; with `step_first`, step along it, and contribute the weights that it leads to."""
        # g = ∇F(x_k), with the l2 term
        g = oracle.gradient(self.w, batch)
        if self.weight_decay:
            g.add_(self.w, alpha=self.weight_decay)
        if step.relative_size != 1.0:
            g.mul_(step.relative_size)
        if self.g is not None:
            self.g.copy_(g)
            return None
        # y = x_k − γ g
        self.update_blockwise(self.w, g, self.v, lr=step.lr)
        return {"x": self.w}

    def apply(self, combined: Message, step: Step) -> None:
        """Continue from the neighbours' mean; with `average_first`, by a step along the gradient at x_k."""
        # x_{k+1/2} = Σ_j W_ij x_j, of x_k, or of the y
        self.w.copy_(combined["x"])
        if self.g is not None:
            # x_{k+1} = x_{k+1/2} − γ g
            self.update_blockwise(self.w, self.g, self.v, lr=step.lr)

    def update(self, w: Tensor, g: Tensor, v: Tensor | None, s: Tensor, *, lr: float) -> None:
        """Take one step on a block; `s` is scratch."""
        sgd_step(w, g, v, s, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """Return `w`, the velocity `v` with momentum, and with `average_first` the last gradient `g`."""
        own = {"w": self.w} | ({} if self.v is None else {"v": self.v})
        return own | ({} if self.g is None else {"g": self.g})

    def compared(self) -> dict[str, CommunicationSchedule]:
        """Return D-PSGD alone: others combine all workers' contributions, which takes another time."""
        # While weights travel beside the gradient, one step of computing hides them.
        return {"D-PSGD": CommunicationSchedule(1, 1 if self.early else 0)}
