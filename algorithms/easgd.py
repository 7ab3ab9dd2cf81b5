"""Elastic averaging SGD: workers train alone, each held by an elastic force to a center variable x̃ on the server.

    worker i, in its local steps t^i = 0, 1, 2, …                                                     (algorithm 1)

        x ← x^i
        if τ divides t^i:   a) x^i ← x^i − α (x − x̃)
                            b) x̃ ← x̃ + α (x − x̃)
        x^i ← x^i − η g^i(x)

    EAMSGD, whose workers have Nesterov momentum, in place of the last line:                           (algorithm 2)

        v^i ← δ v^i − η g^i(x + δ v^i)
        x^i ← x^i + v^i

Source: Zhang, Choromanska, LeCun, "Deep learning with Elastic Averaging SGD", NIPS 2015 (arXiv 1412.6651): its
asynchronous forms. The update is second hand: written down from accounts of the paper. The moving rate α is `alpha`, by
default 0.9/M with M workers, the communication period τ is `tau`, and δ is `momentum`.

After τ local steps a worker pushes x^i. The server takes line b, and answers with the x̃ that x^i met, with which the
worker takes line a: both have the same difference, whatever other workers push meanwhile. At t^i = 0 the difference is
zero.

With α = 0 the center stays where it began, and a worker alone is sequential SGD, to the bit. Without momentum EAMSGD is
EASGD, to rounding.

Decided here, where the paper is silent: x̃ is evaluated. η is the schedule's learning rate at the pull, for all steps
until the push. The l2 term is part of the gradient, at the weights where it is taken. The x^i and v^i stay with their
workers; one that is lost and begins anew takes the x̃ of then. Batch-norm statistics are of the batches of all workers,
at their own weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.base import (
    Batch,
    Field,
    Fields,
    Layout,
    Message,
    Oracle,
    ParameterServer,
    Step,
    Worker,
    in_range,
    integer,
)
from algorithms.blockwise import BlockwiseUpdate


class ElasticWorker(Worker):
    """A worker of EASGD, or of EAMSGD if it has momentum; it keeps x^i, v^i and t^i.

    Args:
        momentum: δ.
        weight_decay: λ of the l2 term.
    """

    interchangeable = True

    def __init__(self, momentum: float, weight_decay: float) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay

    def keep(self, state: Message) -> None:
        """Take over x^i, t^i, and v^i with momentum."""
        self.x, self.t, self.v = state["x"], state["t"], state.get("v")

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Take a local step, the first after a pull with the elastic force; return x^i."""
        met, (lr, alpha) = pulled["met"], pulled["rates"].tolist()
        if batch.step == 0 and self.t.item() == 0:
            # At the beginning x^i = x̃.
            self.x.copy_(met)
        # x ← x^i; where the gradient is taken, x or x + δ v^i
        at = self.x if self.v is None else torch.add(self.x, self.v, alpha=self.momentum)
        g = oracle.gradient(at, batch)
        if self.weight_decay:
            g.add_(at, alpha=self.weight_decay)
        if batch.step == 0:
            # a) x^i ← x^i − α (x − x̃)
            self.x.sub_((self.x - met).mul_(alpha))
        if self.v is None:
            # x^i ← x^i − η g
            self.x.add_(g, alpha=-lr)
        else:
            # v^i ← δ v^i − η g, x^i ← x^i + v^i
            self.x.add_(self.v.mul_(self.momentum).add_(g, alpha=-lr))
        self.t += 1
        return {"x": self.x}


@dataclass(kw_only=True, eq=False)
class EASGD(ParameterServer):
    """Asynchronous EASGD.

    Args:
        tau: τ ≥ 1, local steps from one exchange with the center to the next.
        alpha: moving rate α in [0, 1]; None for 0.9/M.
        weight_decay: λ ≥ 0 of the l2 term (λ/2)‖w‖².

    Raises:
        ValueError: an argument is out of range.
    """

    tau: int = 4
    alpha: float | None = None
    weight_decay: float = 0.0

    # δ, which EAMSGD has.
    momentum = 0.0

    def __post_init__(self) -> None:
        self.period = int(in_range("tau", integer("tau", self.tau), 1))
        if self.alpha is not None:
            in_range("alpha", self.alpha, 0, 1)
        in_range("weight_decay", self.weight_decay, 0)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; `w` is x̃."""
        self.w = w
        self.workers = workers
        self.moving_rate = 0.9 / workers if self.alpha is None else self.alpha
        # What each worker's last push met, and η and α, on the CPU, from where they are sent.
        self.met = w.expand(workers, -1).clone()
        self.rates = torch.zeros(workers, 2, dtype=torch.float64)
        self.pushed = torch.zeros(workers, dtype=torch.bool)
        self.lr = 0.0
        self.update_blockwise = BlockwiseUpdate(self.update, scratch=1, compiled=compiled)

    def layout(self, n: int) -> Layout:
        """Return the center that was met, η and α down, x^i up; with the worker stay x^i, t^i, and v^i."""
        velocity: Fields = {"v": n} if self.momentum else {}
        return Layout(
            pull={"met": n, "rates": Field(2, torch.float64)},
            push={"x": n},
            state={"x": n, "t": Field(1, torch.int64), **velocity},
        )

    def announce(self, step: Step) -> None:
        """See `ParameterServer.announce`."""
        self.lr = step.lr

    def pull(self, worker: int) -> Message:
        """Send the x̃ that the last push met; to a worker that has not pushed, x̃."""
        if not self.pushed[worker]:
            self.met[worker].copy_(self.w)
        self.rates[worker, 0], self.rates[worker, 1] = self.lr, self.moving_rate
        return {"met": self.met[worker], "rates": self.rates[worker]}

    def sent(self, worker: int) -> Message:
        """Return what was sent."""
        return {"met": self.met[worker], "rates": self.rates[worker]}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Keep the center for the worker's line a, and move it."""
        self.pushed[worker] = True
        self.update_blockwise(self.w, message["x"], self.met[worker], alpha=self.moving_rate)

    def update(self, w: Tensor, x: Tensor, met: Tensor, s: Tensor, *, alpha: float) -> None:
        """Move a block of the center; `s` is scratch."""
        met.copy_(w)
        # b) x̃ ← x̃ + α (x − x̃)
        w.add_(torch.sub(x, w, out=s).mul_(alpha))

    def lost(self, worker: int) -> None:
        """If the worker begins anew, it begins at the center."""
        self.pushed[worker] = False

    def worker(self, worker: int) -> Worker:
        """See `ElasticWorker`."""
        return ElasticWorker(self.momentum, self.weight_decay)

    def state(self) -> Message:
        """Return x̃ as `w`; by worker, what its push met, what it was sent, and whether it has pushed."""
        return {"w": self.w, "met": self.met, "rates": self.rates, "pushed": self.pushed}


@dataclass(kw_only=True, eq=False)
class EAMSGD(EASGD):
    """Asynchronous EAMSGD; the other arguments are those of `EASGD`.

    Args:
        momentum: δ in [0, 1), of each worker's own Nesterov momentum.

    Raises:
        ValueError: an argument is out of range.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("momentum", self.momentum, 0, 1, open_high=True)
