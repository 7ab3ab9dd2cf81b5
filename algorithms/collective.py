"""The protocol of methods whose workers step together and combine what they contribute."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from algorithms.method import Fields, Message, Stateful, Step
from algorithms.oracle import Batch, Oracle


class CommunicationSchedule(NamedTuple):
    """When the workers of a collective method communicate.

    Attributes:
        period: local steps from one contribution to the next.
        delay: local steps that a combination travels.
    """

    period: int
    delay: int


class Collective(Stateful):
    """One worker of a method whose workers step together.

    Every step, each worker calls `local`; where that returns a message, the messages of all workers are combined and,
    `delay` steps later, handed to `apply`. All workers return a message in the same steps.

    Attributes:
        combine: how messages are combined: "mean" over the workers; "gather" stacks them by rank, to (M, size); "mix"
            gives each worker a mean of its own, over its neighbours (`mixing`), and it waits for these alone.
        early: whether the message is known before the local step: it is then what `contribute` returns, and travels
            beside that step, for which `local` returns None.
        period: local steps from one contribution to the next.
        delay: local steps that a combination travels before it is applied; 0 waits for it.
        replicated: as in `Stateful`; a simulation then keeps one copy.
        w: this worker's flat weights, valid after `start`.
        rank: this worker's number, from 0.
    """

    steps_together: ClassVar[bool] = True
    combine: ClassVar[Literal["mean", "gather", "mix"]] = "mean"
    replicated: ClassVar[bool] = False
    early: bool = False
    period: int = 1
    delay: int = 0

    w: Tensor
    rank: int

    @abstractmethod
    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """Take over `w` (not a copy) as this worker's weights and allocate its state; see `ParameterServer.start`."""

    @abstractmethod
    def layout(self, n: int) -> Fields:
        """Return the tensors that `local` contributes, see `Fields`; callable before `start`.

        Where contributions are averaged all are float32; gathered ones may be of any type.
        """

    def mixing(self, workers: int) -> Tensor:
        """Return W (M, M), float64 on the CPU, where contributions are mixed: worker i gets Σ_j W_ij of that of j.

        W is symmetric, each row adds up to 1, and over the W_ij that are not 0 every worker is reached. Callable
        always.

        Raises:
            ValueError: so many workers cannot be.
        """
        raise NotImplementedError(f"{type(self).__name__} mixes nothing")

    def check_workers(self, workers: int) -> None:
        """See `Stateful.check_workers`: where contributions are mixed, W has to know all of them."""
        if self.combine == "mix":
            self.mixing(workers)

    def contribute(self, batch: Batch) -> Message | None:
        """Return this worker's contribution to the step with `batch`, before its local step; only where `early`."""
        raise NotImplementedError(f"{type(self).__name__} contributes after its local steps")

    @abstractmethod
    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Take this worker's local step; return its contribution, or None in a step without communication."""

    @abstractmethod
    def apply(self, combined: Message, step: Step) -> None:
        """Apply the combined contributions."""

    def solution(self) -> Tensor:
        """Return this worker's flat weights; the workers' mean is evaluated, saved and hashed."""
        return self.w

    def compared(self) -> dict[str, CommunicationSchedule]:
        """Return the schedules, by name, that `run.advise` compares the cost of communication of; callable always."""
        return {type(self).__name__: CommunicationSchedule(self.period, self.delay)}
