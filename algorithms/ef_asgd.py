"""Asynchronous SGD whose workers push a few bits of their step, and keep the error for the next one (error feedback).

    push by worker i, of the gradient g at the pulled weights:
        p = η g + e_i
        Δ = C(p)                    what is pushed
        e_i ← p − Δ                 what is kept
        w ← w − Δ                   on the server

      signs           C(p) = (‖p‖₁ / n) sign(p): a bit for each of the n weights, and one number
      a share of all  C(p): the k = ⌈share n⌉ elements of p that are largest in magnitude, with their places

Source: Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML
2019 (arXiv 1901.09847), for one machine; here each worker of a parameter server has its own error. The update is second
hand: written down from accounts of the paper, whose numbers of algorithms are therefore not given.

No part of a step is ever lost: w − Σ_i e_i is what ASGD would make of the same gradients, to rounding. With share=1
nothing is compressed, and one worker is SGD, to rounding.

Deviations: an element of p that is zero counts as positive, for a bit has no third value. η is the schedule's learning
rate at the pull, sent along with the weights, since the error holds steps and not gradients. `weight_decay · w` is part
of the gradient, at the pulled weights. The error of a lost worker is lost with it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from algorithms.base import Batch, Field, Layout, Message, Oracle, ParameterServer, Step, Worker, in_range


def pack_signs(p: Tensor) -> Tensor:
    """Return the signs of a flat vector (n,), eight in a byte: a bit is 1 where an element is not negative."""
    bits = torch.zeros(8 * math.ceil(p.numel() / 8), dtype=torch.uint8, device=p.device)
    bits[: p.numel()] = p >= 0
    return (bits.view(-1, 8) << _places(p.device)).sum(1, dtype=torch.uint8)


def unpack_signs(packed: Tensor, like: Tensor) -> Tensor:
    """Return +1 and −1 (n,), with the type and length of `like`, of what `pack_signs` returned."""
    bits = (packed[:, None] >> _places(packed.device)) & 1
    return bits.flatten()[: like.numel()].to(like.dtype).mul_(2).sub_(1)


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


class ErrorFeedbackWorker(Worker):
    """A worker that keeps e_i.

    Args:
        share: see `EFASGD`.
        weight_decay: λ of the l2 term.
    """

    interchangeable = True

    def __init__(self, share: float | None, weight_decay: float) -> None:
        self.share = share
        self.weight_decay = weight_decay

    def keep(self, state: Message) -> None:
        """Take over e_i."""
        self.e = state["e"]

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Add the step to the error, push what of it can be pushed, and keep the rest."""
        w = pulled["w"]
        g = oracle.gradient(w, batch)
        if self.weight_decay:
            g.add_(w, alpha=self.weight_decay)
        # p = η g + e_i, in the place of the error
        p = self.e.add_(g, alpha=float(pulled["lr"]))
        if self.share is None:
            # Δ = (‖p‖₁ / n) sign(p)
            size, signs = p.abs().mean().reshape(1), pack_signs(p)
            # e_i ← p − Δ
            p.sub_(unpack_signs(signs, p).mul_(size))
            return {"size": size, "signs": signs}
        # Δ: the largest elements
        places = torch.topk(p.abs(), kept(self.share, p.numel()), sorted=False).indices
        values = p[places]
        # e_i ← p − Δ
        p[places] = 0
        return {"values": values, "places": places.int()}


def kept(share: float, n: int) -> int:
    """Return k = ⌈share n⌉, at least one element."""
    return max(1, math.ceil(share * n))


class EFASGD(ParameterServer):
    """Asynchronous SGD with error feedback.

    Args:
        share: share of the elements that are pushed, in (0, 1]; None for the signs of all.
        weight_decay: λ ≥ 0 of the l2 term (λ/2)‖w‖².

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, *, share: float | None = None, weight_decay: float = 0.0) -> None:
        if share is not None and in_range("share", share, 0, 1) == 0:
            raise ValueError(f"algorithm.share={share}: nothing would be pushed; allowed: 0 < share <= 1, or null")
        self.share = share
        self.weight_decay = in_range("weight_decay", weight_decay, 0)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; there is nothing to compile."""
        self.w = w
        self.workers = workers
        # On the CPU, from where it is sent.
        self.lr = torch.zeros(1, dtype=torch.float64)

    def layout(self, n: int) -> Layout:
        """Return the weights and η down; signs and a number, or values and places, up; e_i stays with the worker."""
        if self.share is None:
            push = {"size": 1, "signs": Field(math.ceil(n / 8), torch.uint8)}
        else:
            k = kept(self.share, n)
            push = {"values": k, "places": Field(k, torch.int32)}
        return Layout(pull={"w": n, "lr": Field(1, torch.float64)}, push=push, state={"e": n})

    def announce(self, step: Step) -> None:
        """See `ParameterServer.announce`."""
        self.lr.fill_(step.lr)

    def pull(self, worker: int) -> Message:
        """Send w and η."""
        return {"w": self.w, "lr": self.lr}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take the step that was pushed."""
        # w ← w − Δ
        if self.share is None:
            self.w.sub_(unpack_signs(message["signs"], self.w).mul_(message["size"]))
        else:
            self.w.index_add_(0, message["places"], message["values"], alpha=-1)

    def worker(self, worker: int) -> Worker:
        """See `ErrorFeedbackWorker`."""
        return ErrorFeedbackWorker(self.share, self.weight_decay)

    def state(self) -> Message:
        """Return `w`."""
        return {"w": self.w}
