"""DC-ASGD: asynchronous SGD with delay compensation, its constant, adaptive and |g| forms.

    pull by worker m:    w_bak(m) ← w_t;  send w_t                                           (alg. 2)
    push of g_m:         w ← w − η (g_m + λ_t g_m ⊙ g_m ⊙ (w − w_bak(m)))                    (eq. 10)

      -c    λ_t = λ0
      -a    MS ← m MS + (1 − m) g_m ⊙ g_m,   λ_t = λ0 / sqrt(MS + 1e-7)  element-wise        (eq. 14)
      -abs  w ← w − η (g_m + λ0 |g_m| ⊙ (w − w_bak(m)))                        (preprint eq. 9, option I)

Sources: Zheng et al., ICML 2017 (-c and -a; algorithms 1 and 2) and its 2016 preprint (-abs, and -c as option II).

λ=0 is ASGD; with one worker w = w_bak, and every form is sequential SGD, to the bit. With m=0 the adaptive form's
λ_t g ⊙ g is λ0 g² / sqrt(g² + 1e-7) ≈ λ0 |g|: option I.

Where the papers are silent: MeanSquare starts at zero and is one vector on the server (the authors' own code keeps one
per worker: `mean_square=worker`). Weight decay is added outside the λ g ⊙ g term, at the server's current weights.
Momentum is heavy-ball on the compensated gradient. The preprint multiplies λ by 10 each time η is divided by 10:
`lambda_schedule=inverse_lr` sets λ_t = λ0 η_0/η_t, warm-up not counted.

Each form's `update` below is the whole update in the order of the equations. It runs block by block and in place: `s`
and `q` are scratch of a block's length, and a result is written over an operand that is no longer needed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from algorithms.asgd import ASGD, GradientWorker
from algorithms.base import Batch, Layout, Message, Oracle, Step, Worker, in_range, one_of, zeros
from algorithms.momentum import sgd_step

EPSILON = 1e-7
"""ε of eq. 14, "for all our experiments"."""


class BackupWorker(GradientWorker):
    """A worker that keeps w_bak(m) itself: it pushes w_t along with the gradient (preprint, section 4)."""

    interchangeable = True

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Return the gradient at the pulled weights, and these weights."""
        return super().work(oracle, pulled, batch) | {"w": pulled["w"]}


@dataclass(kw_only=True, eq=False)
class DCASGD(ASGD):
    """What the forms of DC-ASGD share: backups and λ. `momentum`, `nesterov`, `weight_decay`: see `SGDOptions`.

    Args:
        lambda0: variance control parameter λ0 ≥ 0.
        lambda_schedule: "constant", or "inverse_lr" for λ_t = λ0 η_0/η_t (the preprint's rule).
        backup: "server" keeps w_bak(m) for each worker there; "worker" has the worker push w_t with its gradient, which
            doubles the traffic and needs no memory per worker on the server (preprint, section 4).

    Raises:
        ValueError: an argument is out of range.
    """

    # No option here: delay compensation takes η as it is.
    staleness: ClassVar[str] = "plain"

    lambda0: float
    lambda_schedule: str = "constant"
    backup: str = "server"

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("lambda0", self.lambda0, 0)
        one_of("lambda_schedule", self.lambda_schedule, ("constant", "inverse_lr"))
        one_of("backup", self.backup, ("server", "worker"))

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; w_bak(m) ← w_0 for every worker (alg. 2)."""
        super().start(w, workers, compiled)
        self.bak = w.expand(workers, -1).clone() if self.backup == "server" else None

    def layout(self, n: int) -> Layout:
        """Return the weights down; the gradient, and with a backup on the worker the pulled weights, up."""
        return Layout(pull={"w": n}, push={"g": n} if self.backup == "server" else {"g": n, "w": n})

    def pull(self, worker: int) -> Message:
        """Keep w_bak(m) ← w_t, and send w_t."""
        if self.bak is None:
            return {"w": self.w}
        self.bak[worker].copy_(self.w)
        return {"w": self.bak[worker]}

    def sent(self, worker: int) -> Message | None:
        """Return w_bak(m) where the server keeps it: what was sent."""
        return None if self.bak is None else {"w": self.bak[worker]}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take one step along the compensated gradient."""
        operands = self.operands(worker, message)
        self.update_blockwise(self.w, message["g"], *operands, self.v, lr=step.lr, lambda_t=self.lambda_t(step))

    def operands(self, worker: int, message: Message) -> list[Tensor]:
        """Return what `update` takes between g and v for a push of `worker`: w_bak(m)."""
        return [message["w"] if self.bak is None else self.bak[worker]]

    def lambda_t(self, step: Step) -> float:
        """Return the scalar part of λ_t: λ0, or λ0 η_0/η_t."""
        return self.lambda0 if self.lambda_schedule == "constant" else self.lambda0 / step.decay

    @abstractmethod
    def update(self, w: Tensor, g: Tensor, *operands: Any, lr: float, lambda_t: float) -> None:
        """Apply one pushed gradient to a block: its `operands`, the velocity, then two blocks of scratch."""

    def worker(self, worker: int) -> Worker:
        """See `GradientWorker` and `BackupWorker`."""
        return GradientWorker() if self.backup == "server" else BackupWorker()

    def state(self) -> Message:
        """Return ASGD's tensors, and the backups `bak` (workers, n) where the server keeps them."""
        return super().state() | ({} if self.bak is None else {"bak": self.bak})


class DCASGDConstant(DCASGD):
    """DC-ASGD-c, λ_t = λ0 (ICML eq. 10; preprint option II, eq. 10); the arguments are those of `DCASGD`."""

    def update(
        self,
        w: Tensor,
        g: Tensor,
        bak: Tensor,
        v: Tensor | None,
        s: Tensor,
        q: Tensor,
        *,
        lr: float,
        lambda_t: float,
    ) -> None:
        """Apply one pushed gradient to a block."""
        # eq. 10: d = g + λ_t g ⊙ g ⊙ (w − w_bak)
        torch.sub(w, bak, out=s).mul_(g)
        d = torch.addcmul(g, s, g, value=lambda_t, out=s)
        # the l2 term, outside the compensation
        if self.weight_decay:
            d.add_(w, alpha=self.weight_decay)
        # eq. 10: w ← w − η d, by way of the velocity v where there is momentum (footnote 10)
        sgd_step(w, d, v, q, lr=lr, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(kw_only=True, eq=False)
class DCASGDAdaptive(DCASGD):
    """DC-ASGD-a, λ_t = λ0 / sqrt(MeanSquare + ε) (ICML eq. 14); the other arguments are those of `DCASGD`.

    Args:
        m: weight of the past in MeanSquare, in [0, 1).
        mean_square: "server" keeps one MeanSquare vector, "worker" one for each worker's gradients.
    """

    m: float
    mean_square: str = "server"

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("m", self.m, 0, 1, open_high=True)
        one_of("mean_square", self.mean_square, ("server", "worker"))

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; MeanSquare starts at zero."""
        super().start(w, workers, compiled)
        self.ms = zeros(1 if self.mean_square == "server" else workers, w.numel(), like=w)

    def operands(self, worker: int, message: Message) -> list[Tensor]:
        """Return w_bak(m) and MeanSquare."""
        return [*super().operands(worker, message), self.ms[0 if self.mean_square == "server" else worker]]

    def update(
        self,
        w: Tensor,
        g: Tensor,
        bak: Tensor,
        ms: Tensor,
        v: Tensor | None,
        s: Tensor,
        q: Tensor,
        *,
        lr: float,
        lambda_t: float,
    ) -> None:
        """Apply one pushed gradient to a block, after MeanSquare took it in."""
        # eq. 14: MS ← m MS + (1 − m) g ⊙ g
        torch.mul(g, g, out=q)
        ms.lerp_(q, 1 - self.m)
        # eq. 10: s = g ⊙ g ⊙ (w − w_bak)
        torch.sub(w, bak, out=s).mul_(q)
        # eq. 14: q = sqrt(MS + ε), so that λ_t = λ0 / q
        torch.add(ms, EPSILON, out=q).sqrt_()
        # eq. 10: d = g + λ_t ⊙ s
        d = torch.addcdiv(g, s, q, value=lambda_t, out=s)
        # the l2 term, outside the compensation
        if self.weight_decay:
            d.add_(w, alpha=self.weight_decay)
        # eq. 10: w ← w − η d, by way of the velocity v where there is momentum (footnote 10)
        sgd_step(w, d, v, q, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def state(self) -> Message:
        """Return DC-ASGD's tensors, and MeanSquare `ms` (1 or workers, n)."""
        return super().state() | {"ms": self.ms}


class DCASGDAbs(DCASGD):
    """DC-ASGD with λ1 |g| in place of λ2 g ⊙ g (preprint eq. 9, option I); `lambda0` is the preprint's λ1."""

    def update(
        self,
        w: Tensor,
        g: Tensor,
        bak: Tensor,
        v: Tensor | None,
        s: Tensor,
        q: Tensor,
        *,
        lr: float,
        lambda_t: float,
    ) -> None:
        """Apply one pushed gradient to a block."""
        # preprint eq. 9: d = g + λ_t |g| ⊙ (w − w_bak)
        torch.sub(w, bak, out=s)
        d = torch.addcmul(g, torch.abs(g, out=q), s, value=lambda_t, out=s)
        # the l2 term, outside the compensation
        if self.weight_decay:
            d.add_(w, alpha=self.weight_decay)
        # preprint eq. 9: w ← w − η d, by way of the velocity v where there is momentum
        sgd_step(w, d, v, q, lr=lr, momentum=self.momentum, nesterov=self.nesterov)
