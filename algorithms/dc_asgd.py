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
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from algorithms.asgd import ASGD, GradientWorker
from algorithms.base import Layout, Message, Step, Worker, in_range, one_of, zeros

EPSILON = 1e-7
"""ε of eq. 14, "for all our experiments"."""


class DCASGD(ASGD):
    """What the forms of DC-ASGD share: backups and λ.

    Args:
        lambda0: variance control parameter λ0 ≥ 0.
        lambda_schedule: "constant", or "inverse_lr" for λ_t = λ0 η_0/η_t (the preprint's rule).
        backup: "server" keeps w_bak(m) for each worker there; "worker" has the worker push w_t with its gradient, which
            doubles the traffic and needs no memory per worker on the server (preprint, section 4).
        momentum: see `ASGD`.
        nesterov: see `ASGD`.
        weight_decay: see `ASGD`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        lambda0: float,
        lambda_schedule: str = "constant",
        backup: str = "server",
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        self.lambda0 = in_range("lambda0", lambda0, 0)
        self.lambda_schedule = one_of("lambda_schedule", lambda_schedule, ("constant", "inverse_lr"))
        self.backup = one_of("backup", backup, ("server", "worker"))

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; w_bak(m) ← w_0 for every worker (alg. 2)."""
        super().start(w, workers, compiled)
        self.bak = w.expand(workers, -1).clone() if self.backup == "server" else None

    def layout(self, n: int) -> Layout:
        """The weights down; the gradient, and with a backup on the worker the pulled weights, up."""
        return Layout(pull={"w": n}, push={"g": n} if self.backup == "server" else {"g": n, "w": n})

    def pull(self, worker: int) -> Message:
        """w_bak(m) ← w_t; send w_t."""
        if self.bak is None:
            return {"w": self.w}
        self.bak[worker].copy_(self.w)
        return {"w": self.bak[worker]}

    def sent(self, worker: int) -> Message | None:
        """What was sent is w_bak(m), where the server keeps it."""
        return None if self.bak is None else {"w": self.bak[worker]}

    def operands(self, worker: int, message: Message) -> tuple[Tensor | None, Tensor | None]:
        """Return w_bak(m), and None for MeanSquare."""
        return message["w"] if self.bak is None else self.bak[worker], None

    def lambda_t(self, step: Step) -> float:
        """λ0, or λ0 η_0/η_t."""
        return self.lambda0 if self.lambda_schedule == "constant" else self.lambda0 / step.decay

    @abstractmethod
    def compensate(
        self, w: Tensor, g: Tensor, bak: Tensor | None, ms: Tensor | None, s: Tensor, q: Tensor, lambda_t: float
    ) -> Tensor:
        """Return the delay-compensated gradient."""

    def worker(self, worker: int) -> Worker:
        """See `GradientWorker`."""
        return GradientWorker(send_weights=self.backup == "worker")

    def state(self) -> Message:
        """ASGD's, and the backups `bak` (workers, n) where the server keeps them."""
        return super().state() | ({} if self.bak is None else {"bak": self.bak})


class DCASGDConstant(DCASGD):
    """DC-ASGD-c, λ_t = λ0 (ICML eq. 10; preprint option II, eq. 10)."""

    def compensate(
        self, w: Tensor, g: Tensor, bak: Tensor | None, ms: Tensor | None, s: Tensor, q: Tensor, lambda_t: float
    ) -> Tensor:
        """g + λ g ⊙ g ⊙ (w − w_bak)."""
        assert bak is not None
        torch.sub(w, bak, out=s).mul_(g)
        return torch.addcmul(g, s, g, value=lambda_t, out=s)  # eq. 10


class DCASGDAdaptive(DCASGD):
    """DC-ASGD-a, λ_t = λ0 / sqrt(MeanSquare + ε) (ICML eq. 14).

    Args:
        m: weight of the past in MeanSquare, in [0, 1).
        mean_square: "server" keeps one MeanSquare vector, "worker" one for each worker's gradients.
        lambda0: see `DCASGD`.
        lambda_schedule: see `DCASGD`.
        backup: see `DCASGD`.
        momentum: see `ASGD`.
        nesterov: see `ASGD`.
        weight_decay: see `ASGD`.
    """

    def __init__(
        self,
        *,
        lambda0: float,
        m: float,
        mean_square: str = "server",
        lambda_schedule: str = "constant",
        backup: str = "server",
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            lambda0=lambda0,
            lambda_schedule=lambda_schedule,
            backup=backup,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
        )
        self.m = in_range("m", m, 0, 1, open_high=True)
        self.mean_square = one_of("mean_square", mean_square, ("server", "worker"))

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; MeanSquare starts at zero."""
        super().start(w, workers, compiled)
        self.ms = zeros(1 if self.mean_square == "server" else workers, w.numel(), like=w)

    def operands(self, worker: int, message: Message) -> tuple[Tensor | None, Tensor | None]:
        """Return w_bak(m) and MeanSquare."""
        return super().operands(worker, message)[0], self.ms[0 if self.mean_square == "server" else worker]

    def compensate(
        self, w: Tensor, g: Tensor, bak: Tensor | None, ms: Tensor | None, s: Tensor, q: Tensor, lambda_t: float
    ) -> Tensor:
        """g + λ_t ⊙ g ⊙ g ⊙ (w − w_bak), after MeanSquare took in g."""
        assert bak is not None and ms is not None
        torch.mul(g, g, out=q)
        ms.lerp_(q, 1 - self.m)  # eq. 14
        torch.sub(w, bak, out=s).mul_(q)
        torch.add(ms, EPSILON, out=q).sqrt_()
        return torch.addcdiv(g, s, q, value=lambda_t, out=s)  # eq. 10

    def state(self) -> Message:
        """DC-ASGD's, and MeanSquare `ms` (1 or workers, n)."""
        return super().state() | {"ms": self.ms}


class DCASGDAbs(DCASGD):
    """DC-ASGD with λ1 |g| in place of λ2 g ⊙ g (preprint eq. 9, option I); `lambda0` is the preprint's λ1."""

    def compensate(
        self, w: Tensor, g: Tensor, bak: Tensor | None, ms: Tensor | None, s: Tensor, q: Tensor, lambda_t: float
    ) -> Tensor:
        """g + λ |g| ⊙ (w − w_bak)."""
        assert bak is not None
        torch.sub(w, bak, out=s)
        return torch.addcmul(g, torch.abs(g, out=q), s, value=lambda_t, out=s)  # preprint eq. 9
