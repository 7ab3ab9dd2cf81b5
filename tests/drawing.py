"""A user's network and method that draw random numbers in functions, where no layer shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.asgd import ASGD
from algorithms.base import Batch, Message, Oracle, Step, Worker
from algorithms.local_sgd import LocalSGD
from models.base import Chain

NETWORK = ("model=linear", "model._target_=tests.drawing.Drawing")


class Attention(nn.Module):
    """Attends over pairs of features, with dropout that no layer of the network shows."""

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = inputs.unflatten(1, (1, -1, 2))
        rate = 0.4 if self.training else 0.0
        return functional.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=rate).flatten(1)


class Dropping(nn.Module):
    """Drops units by the function."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.dropout(inputs, 0.4, self.training)


class Drawing(Chain):
    """Two linear layers, attention with dropout between them, and a functional dropout."""

    def __init__(self, *, shape: Sequence[int], classes: int, width: int = 12, bias: bool = True) -> None:
        first = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.Tanh(), Attention())
        super().__init__([("first", first), ("second", nn.Sequential(Dropping(), nn.Linear(width, classes, bias)))])


class NoisyWorker(Worker):
    """Adds noise of its own to a gradient, drawn before and after it is asked for."""

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        before = torch.rand(len(pulled["w"]))
        g = oracle.gradient(pulled["w"], batch)
        return {"g": g + 0.01 * (before + torch.rand(len(g)))}


@dataclass(kw_only=True, eq=False)
class Noisy(ASGD):
    """ASGD with noise from the default generator on both sides."""

    def push(self, worker: int, message: Message, step: Step) -> None:
        super().push(worker, {"g": message["g"] + 0.01 * torch.rand(len(self.w))}, step)

    def worker(self, worker: int) -> Worker:
        return NoisyWorker()


@dataclass(kw_only=True, eq=False)
class Pieces(LocalSGD):
    """Every local step is two, on halves of its batch."""

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        for ids in batch.ids.tensor_split(2):
            found = super().local(oracle, batch._replace(ids=ids), step)
        return found
