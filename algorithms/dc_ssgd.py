"""DC-SSGD: synchronous SGD whose gradients are applied one after the other, each compensated for those before it.

    each worker j:    g_j = g(w_t)                                  all g_j are gathered
    everywhere:       w̃ ← w_t;  in ascending order of ‖g_j‖, ties by worker:
                      w̃ ← w̃ − (η̂/M) (g_j + λ g_j ⊙ g_j ⊙ (w̃ − w_t)),   η̂ = M η         (eq. 110, 111)
                      w_{t+1} = w̃

Source: Zheng et al., ICML 2017, appendix H. `schedule.lr` is η, the rate of one worker's gradient, so λ=0 is `ssgd` at
M η, to rounding, and one worker is sequential SGD, to the bit.

The paper asks for an order in which ‖w̃ − w_t‖ grows, as the Taylor expansion is good near w_t, and does not say how to
find one. Ascending norms are ours: short steps come first, while w̃ is near. The distance need not grow all the way: a
step that points back to w_t, as (−1.1, 0) after (1, 0), makes it smaller. Here w̃ − w_t = −η s is kept as the sum s of
the compensated gradients, which spares the rounding of w̃.

Decided here, where the paper is silent: weight decay is wd · w_t in each of the M small steps, outside the λ g ⊙ g
term; momentum is heavy-ball on the mean s/M of the compensated gradients, with rate η̂. Where the last step of an epoch
leaves the workers with shares that differ by one sample, a gradient counts by its samples, as in `SSGD`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from algorithms.base import Batch, Collective, Message, Oracle, Step, in_range, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import SGDOptions, sgd_step


@dataclass(kw_only=True, eq=False)
class DCSSGD(SGDOptions, Collective):
    """Synchronous SGD with delay-compensated gradients; the other arguments are those of `SGDOptions`.

    Args:
        lambda0: λ >= 0, the weight of the compensation.
        lambda_schedule: "constant", or "inverse_lr": λ grows as the learning rate, warm-up excluded, decays, so that
            λ η keeps its initial value (DC-ASGD's preprint).

    Raises:
        ValueError: an argument is out of range.
    """

    combine: ClassVar[Literal["mean", "gather"]] = "gather"
    replicated: ClassVar[bool] = True

    lambda0: float = 0.04
    lambda_schedule: str = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("lambda0", self.lambda0, 0)
        one_of("lambda_schedule", self.lambda_schedule, ("constant", "inverse_lr"))

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """Return the gradient, and its norm: with the sender's number all ranks agree on the order."""
        return {"g": n, "norm": 1}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message:
        """Return g_j."""
        g = oracle.gradient(self.w, batch)
        if step.relative_size != 1.0:
            g.mul_(step.relative_size)
        return {"g": g, "norm": torch.linalg.vector_norm(g).reshape(1)}

    def apply(self, combined: Message, step: Step) -> None:
        """Apply all gradients, smallest first."""
        order = torch.argsort(combined["norm"].flatten(), stable=True)
        lambda_t = self.lambda0 if self.lambda_schedule == "constant" else self.lambda0 / step.decay
        # On a GPU reading the order would make the host wait; sorting the gradients there costs one pass over them.
        gradients = combined["g"][order] if order.is_cuda else [combined["g"][j] for j in order.tolist()]
        self.update_blockwise(self.w, self.v, *gradients, eta=step.lr, lambda_t=lambda_t)

    def update(self, w: Tensor, v: Tensor | None, *others: Tensor, eta: float, lambda_t: float) -> None:
        """Take all M small steps on a block; `others` are the ordered gradients and two blocks of scratch."""
        *gradients, s, c = others
        # w̃ ← w_t: s = 0, for w̃ − w_t = −η s
        s.zero_()
        for g in gradients:
            # eq. 110: c = g_j + λ g_j ⊙ g_j ⊙ (w̃ − w_t), the last factor first
            torch.mul(s, g, out=c).mul_(g).mul_(-lambda_t * eta).add_(g)
            # the l2 term, outside the compensation
            if self.weight_decay:
                c.add_(w, alpha=self.weight_decay)
            # eq. 111: w̃ ← w̃ − (η̂/M) c, where η̂/M = η
            s.add_(c)
        # w_{t+1} = w̃ = w_t − η̂ (s/M), by way of the velocity v where there is momentum
        s.div_(len(gradients))
        sgd_step(w, s, v, c, lr=len(gradients) * eta, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """Return `w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})
