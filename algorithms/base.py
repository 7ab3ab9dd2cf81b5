"""The protocols between a method and whatever executes it.

A method is written once, as tensor code on flat vectors, and runs unchanged on the simulated cluster and on real
processes. It never sees a network, a data set or a clock: it asks an `Oracle` for gradients and answers with messages.

Parameter server (`ParameterServer`, with a `Worker` half): workers pull, compute and push whenever they are ready; the
server handles one message at a time. It may ask for barriers, at which all workers meet and answer for fixed shards of
the training set. Collective (`Collective`): all workers take a local step, what they contribute is combined (averaged
or gathered), and every worker applies the combination. Two more have files of their own: `algorithms.shared_memory`,
one vector of weights that all write to, and `algorithms.pipeline`, a network in modules.

To add a method, subclass one of them, implement its abstract methods, and write `conf/algorithm/<name>.yaml` with
the class as `_target_`. Greek letters are spelled as the papers do: `lambda0`, `tau` (staleness), `eta` (learning
rate).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

# Methods find all they need here.
from algorithms.checks import flag as flag
from algorithms.checks import in_range as in_range
from algorithms.checks import integer as integer
from algorithms.checks import one_of as one_of
from algorithms.checks import positive as positive
from algorithms.oracle import Batch as Batch
from algorithms.oracle import Oracle as Oracle
from algorithms.oracle import Problem as Problem
from algorithms.oracle import Rows as Rows
from algorithms.oracle import shard_range as shard_range

Message = dict[str, Tensor]
"""Named tensors of fixed shapes; an executor packs them into one buffer and sends them as one."""


class Step(NamedTuple):
    """What an executor tells a method about the update at hand.

    Attributes:
        lr: learning rate η of this update, warm-up included.
        decay: η without warm-up, relative to the value it falls from (1, then 0.1, 0.01 … under the papers'
            multi-step; 1 while a one-cycle rises); always above 0.
        staleness: number τ of server updates between the worker's pull and this push (parameter server only).
        share: this worker's samples relative to an equal cut of the step's samples (collective only).
    """

    lr: float
    decay: float = 1.0
    staleness: int = 0
    share: float = 1.0


class Layer(NamedTuple):
    """A module that owns weights, and its piece `w[low:high]` of the flat vector.

    Attributes:
        name: the module's path in the network, as in its state dict.
        low: first element of the piece.
        high: one past the last.
    """

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Cost:
    """What one step of a worker costs, for the virtual clock and for counting effective passes.

    Attributes:
        gradients: gradient evaluations per sample of the batch.
    """

    gradients: float = 1.0


@dataclass(frozen=True)
class Layout:
    """Number of elements of each tensor in a method's messages, in the order in which they are packed.

    Attributes:
        pull: what a worker gets.
        push: what it sends.
        mirror: what it sends besides, for the server's copy of its state; the clock of a cluster does not count it.
        shard_state: what a worker that takes over a shard gets once, see `ParameterServer.shard_state`.
    """

    pull: dict[str, int]
    push: dict[str, int]
    mirror: dict[str, int] = field(default_factory=dict)
    shard_state: dict[str, int] = field(default_factory=dict)


class Round(NamedTuple):
    """Sizes of the messages of one round of a barrier.

    Attributes:
        broadcast: number of elements of each tensor that the server sends to every worker.
        answer: likewise of what each shard's worker answers; empty where it answers nothing.
    """

    broadcast: dict[str, int]
    answer: dict[str, int]


class CommunicationSchedule(NamedTuple):
    """When the workers of a collective method communicate.

    Attributes:
        period: local steps from one contribution to the next.
        delay: local steps that a combination travels.
    """

    period: int
    delay: int


class Worker(ABC):
    """The worker half of a parameter-server method."""

    @abstractmethod
    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Turn the pulled message and a batch into the message to push.

        The returned tensors may be borrowed from the oracle or from `pulled`; they are valid until the next call.
        """

    def adopt_shard(self, shard: range, message: Message) -> None:  # noqa: B027 (most workers keep nothing)
        """Take over a shard of the training set, with what `ParameterServer.shard_state` says of it."""

    def receive(self, number: int, message: Message) -> None:  # noqa: B027 (most methods have no barriers)
        """Take in what the server broadcasts in round `number` of a barrier; what is to be kept must be copied."""

    def answer(self, oracle: Oracle, number: int, shard: Batch) -> Message:
        """Return the contribution of a shard to round `number`, after `receive`; the server gets the sum over shards.

        It is a function of what was received and of the shard: a lost worker's shard is answered for by another.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rounds with answers")

    def restore(self, message: Message) -> None:  # noqa: B027
        """Take in what `ParameterServer.restore` returned: the state that this half had, in a run that goes on."""


class Stateful(ABC):
    """A method whose whole state is a set of named tensors, and what every executor asks of it.

    Attributes:
        has_server: whether a server handles messages one by one, in an order that can be recorded and replayed.
        steps_together: whether an update combines a batch of every worker; else each worker's batch makes one.
        shares_memory: whether all workers write to one vector in the memory of one machine.
        cuts_network: whether workers are modules of one network, and all work on the same batch.
        replicated: whether all workers hold the same weights and state at all times, or there is one vector of weights.
        default_workers: number of workers where the user gives none.
        max_workers: largest number of workers that makes sense, None for any.
        cost: what one step, push or update costs a worker.
        barrier_every: updates from one barrier to the next; None for no barriers.
        barrier_from: updates before the first one, 0 to begin with it; None for as many as `barrier_every`.
        barrier_cost: what a barrier costs in all, per training sample.
        workers: number of workers, valid after `start`.
        per_sample: whether the method asks the oracle for norms of single samples' gradients; networks with layers
            that cannot tell them are then refused before the run.
        separable: whether the method needs f to be a mean of functions f_i of single samples; networks with batch norm
            are then refused before the run.
        needs: what it asks of the objective: "gradients", which every model has; "rows", gradients of single samples of
            a model with one weight a feature; "dual", these of a quadratic loss. The last two have workers with fixed
            shards of the training set.
        weight_decay: λ, coefficient of the l2 term (λ/2)‖w‖².
    """

    has_server: ClassVar[bool] = False
    steps_together: ClassVar[bool] = False
    shares_memory: ClassVar[bool] = False
    cuts_network: ClassVar[bool] = False
    replicated: ClassVar[bool] = True
    default_workers: ClassVar[int] = 4
    max_workers: ClassVar[int | None] = None
    cost: ClassVar[Cost] = Cost()
    barrier_every: int | None = None
    barrier_from: int | None = None
    barrier_cost: ClassVar[Cost] = Cost(0.0)
    per_sample: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    needs: ClassVar[Literal["gradients", "rows", "dual"]] = "gradients"
    weight_decay: float = 0.0

    workers: int

    def bind_problem(self, problem: Problem) -> None:  # noqa: B027 (most methods need not know)
        """Learn what the problem is, where `needs` is more than gradients; called once, before all but `prepare`.

        Raises:
            ValueError: the method cannot solve such a problem.
        """

    def evaluations(self, updates: int) -> float:
        """Return the gradient evaluations per sample of update number `updates`, counted from 0; callable always."""
        return self.cost.gradients

    def largest_rate(self) -> float | None:
        """Return the learning rate from which on the method cannot converge; None where it is not known."""
        return None

    def duals(self, states: Sequence[Message]) -> Tensor | None:
        """Return the dual variables (n,) of all samples, where the method has such; None, the default, where not.

        Args:
            states: what `state` returned: of the server alone, or of every worker of a collective method.
        """
        return None

    def prepare(self, layers: Sequence[Layer]) -> None:  # noqa: B027 (most methods look at no layers)
        """Learn which piece of the flat vector belongs to which layer; called once, before everything else.

        Raises:
            ValueError: the method was told something about a layer that does not exist.
        """

    def plan(self, samples: int, batch: int) -> None:  # noqa: B027
        """Learn the number n of training samples and the samples of a batch; called once, after `prepare`."""

    @abstractmethod
    def state(self) -> Message:
        """Return every tensor that the next steps depend on, by name; not copies."""

    def load_state(self, state: Message) -> None:
        """Copy a saved `state()` back in.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape.
        """
        own = self.state()
        if own.keys() != state.keys():
            raise ValueError(f"algorithm state has {sorted(state)}; expected {sorted(own)}")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ValueError(
                    f"algorithm state {name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])


class ParameterServer(Stateful):
    """The server half of a method on a parameter server; executors call it for one message at a time.

    A barrier comes after `barrier_from` pushes and then after every `barrier_every`: nobody gets a batch until all
    pushes so far have arrived; then come the method's rounds, in each of which every worker receives a message and,
    where the round has answers, one is given for each of the M fixed shards of the training set and their sum handed to
    `collect`; then all workers pull anew. With no rounds it makes everybody's weights fresh. The run's end is none.

    Attributes:
        at_rest: whether real workers must have pushed what they compute before weights are evaluated and saved.
        w: the flat weights, valid after `start`.
    """

    has_server: ClassVar[bool] = True
    at_rest: ClassVar[bool] = False

    w: Tensor

    @abstractmethod
    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """Take over `w` (not a copy) as the initial weights and allocate the method's state for `workers` workers.

        With `compiled`, update rules are fused by `torch.compile`, which may change the last bits.
        """

    @abstractmethod
    def layout(self, n: int) -> Layout:
        """Return the shapes of the messages for `n` weights; callable before `start`."""

    @abstractmethod
    def pull(self, worker: int) -> Message:
        """Return what `worker` gets when it pulls now; it may alias the live weights."""

    def announce(self, step: Step) -> None:
        """Be told the learning rate at which the coming pulls are answered."""

    def shard_state(self, shard: range) -> Message:
        """Return what a worker half needs to take over a shard of the training set, see `Worker.adopt_shard`."""
        return {}

    def sent(self, worker: int) -> Message | None:
        """Return what the last `pull` of `worker` returned, unchanged, where the server keeps it as a backup.

        With None, the default, an executor that needs the message past the next push copies it.
        """
        return None

    @abstractmethod
    def push(self, worker: int, message: Message, step: Step) -> None:
        """Update the weights with what `worker` pushed."""

    @abstractmethod
    def worker(self, worker: int) -> Worker:
        """Return the worker half for `worker`; callable before `start`, and it must not hold on to the server."""

    def rounds(self, n: int) -> list[Round]:
        """Return the rounds of a barrier for `n` weights; callable before `start`."""
        return []

    def broadcast(self, number: int) -> Message:
        """Return what every worker gets in round `number` of a barrier; it may alias live state."""
        raise NotImplementedError(f"{type(self).__name__} has no rounds")

    def collect(self, number: int, total: Message) -> None:
        """Take in the sum of the answers of round `number`, added up in the order of the shards."""
        raise NotImplementedError(f"{type(self).__name__} has no rounds with answers")

    def restoring(self, n: int) -> dict[str, int]:
        """Return the sizes of what `restore` returns for `n` weights; empty where worker halves keep no state."""
        return {}

    def restore(self, worker: int) -> Message:
        """Return what `worker`'s half has to know in a run that goes on, after `load_state`; it may alias live state.

        Whoever executes the method gives it to every half before anything else.
        """
        return {}

    def solution(self) -> Tensor:
        """Return the flat weights that are evaluated, saved and hashed."""
        return self.w


class Collective(Stateful):
    """One worker of a method whose workers step together.

    Every step, each worker calls `local`; where that returns a message, the messages of all workers are combined and,
    `delay` steps later, handed to `apply`. All workers return a message in the same steps.

    Attributes:
        combine: how messages are combined: "mean" over the workers; "gather" stacks them by rank, to (M, size).
        period: local steps from one contribution to the next.
        delay: local steps that a combination travels before it is applied; 0 waits for it.
        replicated: as in `Stateful`; a simulation then keeps one copy.
        w: this worker's flat weights, valid after `start`.
        rank: this worker's number, from 0.
    """

    steps_together: ClassVar[bool] = True
    combine: ClassVar[Literal["mean", "gather"]] = "mean"
    replicated: ClassVar[bool] = False
    period: int = 1
    delay: int = 0

    w: Tensor
    rank: int

    @abstractmethod
    def start(self, w: Tensor, rank: int, workers: int, compiled: bool = False) -> None:
        """Take over `w` (not a copy) as this worker's weights and allocate its state; `compiled` as for a server."""

    @abstractmethod
    def layout(self, n: int) -> dict[str, int]:
        """Return the number of elements of each tensor that `local` contributes; callable before `start`."""

    @abstractmethod
    def local(self, oracle: Oracle, batch: Batch, step: Step) -> Message | None:
        """Take this worker's local step and return its contribution, None in a step without communication."""

    @abstractmethod
    def apply(self, combined: Message, step: Step) -> None:
        """Apply the combined contributions."""

    def solution(self) -> Tensor:
        """Return this worker's flat weights; the workers' mean is evaluated, saved and hashed."""
        return self.w

    def compared(self) -> dict[str, CommunicationSchedule]:
        """Return, by name, the rhythms to set side by side where the cost of communication is told; callable always."""
        return {type(self).__name__: CommunicationSchedule(self.period, self.delay)}


def zeros(*shape: int, like: Tensor) -> Tensor:
    """Return zeros of `shape` with the type and device of `like`."""
    return torch.zeros(shape, dtype=like.dtype, device=like.device)
