"""DC-SSGD: synchronous SGD whose gradients are applied one after the other, each compensated for those before it.

    each worker j:    g_j = g(w_t)                                  all g_j are gathered
    everywhere:       w̃ ← w_t;  in ascending order of ‖g_j‖, ties by worker:
                      w̃ ← w̃ − (η̂/M) (g_j + λ g_j ⊙ g_j ⊙ (w̃ − w_t)),   η̂ = M η         (eq. 110, 111)
                      w_{t+1} = w̃

Source: Zheng et al., ICML 2017, appendix H. `schedule.lr` is η, the rate of one worker's gradient, so λ=0 is `ssgd` at
M η, to rounding, and one worker is sequential SGD, to the bit.

The paper asks for an order in which ‖w̃ − w_t‖ grows: smallest gradients first. Here w̃ − w_t = −η s is kept as the sum
s of the compensated gradients, which spares the rounding of w̃.

Decided here, where the paper is silent: weight decay is wd · w_t in each of the M small steps, outside the λ g ⊙ g
term; momentum is heavy-ball on the mean s/M of the compensated gradients, with rate η̂. Where the last step of an epoch
leaves the workers with shares that differ by one sample, a gradient counts by its samples, as in `SSGD`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from algorithms.base import Batch, Collective, Message, Oracle, Step, in_range, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import check_nesterov, sgd_step


class DCSSGD(Collective):
    """Synchronous SGD with delay-compensated gradients.

    Args:
        lambda0: λ >= 0, the weight of the compensation.
        lambda_schedule: "constant", or "inverse_lr": λ grows as the learning rate, warm-up excluded, decays, so that
            λ η keeps its initial value (DC-ASGD's preprint).
        momentum: heavy-ball coefficient μ in [0, 1).
        nesterov: use Nesterov's form of momentum.
        weight_decay: coefficient of the l2 term.

    Raises:
        ValueError: an argument is out of range.
    """

    combine: ClassVar[Literal["mean", "gather"]] = "gather"
    replicated: ClassVar[bool] = True

    def __init__(
        self,
        *,
        lambda0: float = 0.04,
        lambda_schedule: str = "constant",
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.lambda0 = in_range("lambda0", lambda0, 0)
        self.lambda_schedule = one_of("lambda_schedule", lambda_schedule, ("constant", "inverse_lr"))
        self.momentum = in_range("momentum", momentum, 0, 1, open_high=True)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)
        self.nesterov = check_nesterov(nesterov, momentum)

    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """See `Collective.start`."""
        self.w = w
        self.rank = rank
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def layout(self, n: int) -> dict[str, int]:
        """The gradient, and its norm: with the sender's number all ranks agree on the order."""
        return {"g": n, "norm": 1}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message:
        """Return g_j."""
        g = oracle.gradient(self.w, batch)
        if step.share != 1.0:
            g.mul_(step.share)
        return {"g": g, "norm": torch.linalg.vector_norm(g).reshape(1)}

    def apply(self, combined: Message, step: Step) -> None:
        """Apply all gradients, smallest first."""
        order = torch.argsort(combined["norm"].flatten(), stable=True)
        lambda_t = self.lambda0 if self.lambda_schedule == "constant" else self.lambda0 / step.decay
        # On a GPU reading the order would make the host wait; sorting the gradients there costs one pass over them.
        gradients = combined["g"][order] if order.is_cuda else [combined["g"][j] for j in order.tolist()]
        self.update_blockwise(self.w, self.v, *gradients, eta=step.lr, lambda_t=lambda_t)

    def update(self, w: Tensor, v: Tensor | None, *rest: Tensor, eta: float, lambda_t: float) -> None:
        """All M small steps on a block; `rest` are the ordered gradients and two blocks of scratch."""
        *gradients, s, c = rest
        s.zero_()
        for g in gradients:
            torch.mul(s, g, out=c).mul_(g).mul_(-lambda_t * eta).add_(g)  # eq. 110: w̃ − w_t = −η s
            if self.weight_decay:
                c.add_(w, alpha=self.weight_decay)
            s.add_(c)  # eq. 111
        s.div_(len(gradients))
        sgd_step(w, s, v, c, lr=len(gradients) * eta, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """`w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})
