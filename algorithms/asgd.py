"""Asynchronous SGD on a parameter server.

    pull by worker m:    send w_t
    push of g_m:         w_{t+τ+1} = w_{t+τ} − η g_m(w_t)                                    (eq. 3)

Source: Zheng et al., "Asynchronous Stochastic Gradient Descent with Delay Compensation", ICML 2017, section 2; the
staleness-aware learning rate η/max(1, τ) is that of Zhang et al., "Staleness-aware Async-SGD", IJCAI 2016.

Beyond the papers' plain form: heavy-ball or Nesterov momentum on the server (the ICML paper's footnote 10 mentions
momentum variants without giving them), and weight decay, which the server adds at its current weights.
With one worker every variant is sequential SGD, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.base import Batch, Layout, Message, Oracle, ParameterServer, Step, Worker, in_range, one_of, zeros
from algorithms.blockwise import BlockwiseUpdate
from algorithms.momentum import check_nesterov, sgd_step


class GradientWorker(Worker):
    """Algorithm 1 of the ICML paper: pull w_t, compute g_m = ∇f_m(w_t), push g_m.

    Args:
        send_weights: push w_t along with the gradient, for a server that keeps no backup (twice the traffic).
    """

    def __init__(self, *, send_weights: bool = False) -> None:
        self.send_weights = send_weights

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Return the gradient at the pulled weights, and with `send_weights` these weights too."""
        message = {"g": oracle.gradient(pulled["w"], batch)}
        return message | {"w": pulled["w"]} if self.send_weights else message


class ASGD(ParameterServer):
    """Asynchronous SGD; base of the delay-compensated methods.

    Args:
        momentum: heavy-ball coefficient μ in [0, 1): v ← μ v + d, w ← w − η v.
        nesterov: use d + μ v instead of v.
        weight_decay: coefficient of the l2 term, added as `weight_decay · w` at the server's current weights.
        staleness: "plain", or "aware" to divide η by max(1, τ), τ the staleness of the push in updates.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0, staleness: str = "plain"
    ) -> None:
        self.momentum = in_range("momentum", momentum, 0, 1, open_high=True)
        self.weight_decay = in_range("weight_decay", weight_decay, 0)
        self.staleness = one_of("staleness", staleness, ("plain", "aware"))
        self.nesterov = check_nesterov(nesterov, momentum)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`."""
        self.w = w
        self.workers = workers
        self.v = zeros(w.numel(), like=w) if self.momentum else None
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=2, compiled=compiled)

    def layout(self, n: int) -> Layout:
        """The weights down, the gradient up."""
        return Layout(pull={"w": n}, push={"g": n})

    def pull(self, worker: int) -> Message:
        """Send w_t."""
        return {"w": self.w}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take one step with the pushed gradient."""
        lr = step.lr / max(1, step.staleness) if self.staleness == "aware" else step.lr
        self.update_blockwise(
            self.w, message["g"], *self.operands(worker, message), self.v, lr=lr, lambda_t=self.lambda_t(step)
        )

    def operands(self, worker: int, message: Message) -> tuple[Tensor | None, Tensor | None]:
        """Return w_bak(m) and MeanSquare for this push, None where the method has none."""
        return None, None

    def lambda_t(self, step: Step) -> float:
        """Return the compensation's coefficient for this push."""
        return 0.0

    def update(
        self,
        w: Tensor,
        g: Tensor,
        bak: Tensor | None,
        ms: Tensor | None,
        v: Tensor | None,
        s: Tensor,
        q: Tensor,
        *,
        lr: float,
        lambda_t: float,
    ) -> None:
        """One server update on a block: compensate the gradient, add the decay, descend. `s` and `q` are scratch."""
        d = self.compensate(w, g, bak, ms, s, q, lambda_t)
        if self.weight_decay:
            d = torch.add(d, w, alpha=self.weight_decay, out=s)
        sgd_step(w, d, v, q, lr=lr, momentum=self.momentum, nesterov=self.nesterov)  # eq. 3

    def compensate(
        self, w: Tensor, g: Tensor, bak: Tensor | None, ms: Tensor | None, s: Tensor, q: Tensor, lambda_t: float
    ) -> Tensor:
        """Return the descent direction for a pushed gradient: the gradient itself."""
        return g

    def worker(self, worker: int) -> Worker:
        """See `GradientWorker`."""
        return GradientWorker()

    def state(self) -> Message:
        """`w`, and the velocity `v` with momentum."""
        return {"w": self.w} | ({} if self.v is None else {"v": self.v})
