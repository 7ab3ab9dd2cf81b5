"""Methods of a user's that send what they did not declare, or another type than float32, rightly declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from algorithms.asgd import ASGD, GradientWorker
from algorithms.base import Batch, Field, Fields, Layout, Message, Oracle, Step, Worker
from algorithms.local_sgd import LocalSGD
from algorithms.ssgd import SSGD

BIG = 2**53 + 1
"""A whole number that neither float32 nor float64 holds."""


class SpeakingWorker(GradientWorker):
    """Pushes what a method says besides the gradient.

    Args:
        said: the kind, see `Speaking`.
    """

    def __init__(self, said: str) -> None:
        self.said = said

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        message = super().work(oracle, pulled, batch)
        count = torch.tensor([BIG + batch.number])
        if "count" in pulled:
            assert int(pulled["count"]) == BIG, "came down to the bit"
        wrong: dict[str, Message] = {
            "undeclared": {"x": torch.ones(1)},
            "float64": {"g": message["g"].double()},
            "shape": {"g": message["g"][None]},
        }
        if self.said == "missing":
            return {}
        return message | ({"count": count} if self.said in ("count", "converted") else wrong.get(self.said, {}))


@dataclass(kw_only=True, eq=False)
class Speaking(ASGD):
    """ASGD whose workers say more than a gradient.

    Args:
        staleness: what is said: "count", an int64 that is declared; "converted", one that is declared float32;
            "undeclared", "float64", "shape" or "missing".
    """

    staleness: str = "count"

    def __post_init__(self) -> None:
        self.said, self.staleness = self.staleness, "plain"
        super().__post_init__()
        self.counts: list[int] = []

    def layout(self, n: int) -> Layout:
        if self.said == "count":
            return Layout(pull={"w": n, "count": Field(1, torch.int64)}, push={"g": n, "count": Field(1, torch.int64)})
        return Layout(pull={"w": n}, push={"g": n, "count": 1} if self.said == "converted" else {"g": n})

    def start(self, w: torch.Tensor, workers: int, compiled: bool = False) -> None:
        super().start(w, workers, compiled)
        self.total = torch.zeros(1, dtype=torch.int64)

    def pull(self, worker: int) -> Message:
        return super().pull(worker) | ({"count": torch.tensor([BIG])} if self.said == "count" else {})

    def push(self, worker: int, message: Message, step: Step) -> None:
        if "count" in message:
            self.total += message["count"] - BIG
        super().push(worker, message, step)

    def worker(self, worker: int) -> Worker:
        return SpeakingWorker(self.said)

    def state(self) -> Message:
        return super().state() | {"total": self.total}


@dataclass(kw_only=True, eq=False)
class Counting(SSGD):
    """Gathers gradients, and whole numbers that weigh in the update only if they arrive to the bit."""

    combine: ClassVar[Literal["mean", "gather"]] = "gather"

    def layout(self, n: int) -> Fields:  # type: ignore[override]
        return {"count": Field(1, torch.int64), "g": n}

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message:
        return super().local(oracle, batch, step) | {"count": torch.tensor([BIG + batch.number])}

    def apply(self, combined: Message, step: Step) -> None:
        counts = (combined["count"] - BIG).flatten().tolist()
        assert len(set(counts)) == 1
        super().apply({"g": combined["g"].sum(0) * (1 + counts[0] % 3)}, step)


@dataclass(kw_only=True, eq=False)
class Careless(LocalSGD):
    """Contributes a field that it did not declare."""

    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Any:
        message = super().local(oracle, batch, step)
        return None if message is None else message | {"extra": torch.ones(1)}


@dataclass(kw_only=True, eq=False)
class Summing(ASGD):
    """Keeps what each worker pushed last, and the sum."""

    def start(self, w: torch.Tensor, workers: int, compiled: bool = False) -> None:
        super().start(w, workers, compiled)
        self.shares = torch.zeros(workers, len(w))
        self.total = torch.zeros(len(w))

    def push(self, worker: int, message: Message, step: Step) -> None:
        self.total += message["g"] - self.shares[worker]
        self.shares[worker] = message["g"]
        super().push(worker, message, step)

    def lost(self, worker: int) -> None:
        self.total -= self.shares[worker]
        self.shares[worker] = 0

    def state(self) -> Message:
        return super().state() | {"shares": self.shares, "total": self.total}


@dataclass(kw_only=True, eq=False)
class Centred(LocalSGD):
    """Local SGD whose solution is the last average, the same vector on every worker."""

    def start(self, w: torch.Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        super().start(w, rank, workers, compiled)
        self.centre = w.clone()

    def apply(self, combined: Message, step: Step) -> None:
        super().apply(combined, step)
        self.centre.copy_(self.w)

    def solution(self) -> torch.Tensor:
        return self.centre

    def state(self) -> Message:
        return super().state() | {"centre": self.centre}
