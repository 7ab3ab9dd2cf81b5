"""The protocol of methods on a parameter server: workers pull, compute and push, each whenever it is ready.

The server half and the worker halves are separate objects; the same ones run in every executor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from torch import Tensor

from algorithms.method import Fields, Message, Stateful, Step
from algorithms.oracle import Batch, Oracle


@dataclass(frozen=True)
class Layout:
    """The tensors of a method's messages by name: the number of float32 elements of each, or a `Field` of another type.

    A message must have these tensors, as flat vectors of these types, and no others; executors hold every one against
    its layout.

    Attributes:
        pull: what a worker gets.
        push: what it sends.
        mirror: what it sends besides, for the server's copy of its state; the clock of a cluster does not count it.
        shard_state: what a worker that takes over a shard gets once, see `ParameterServer.shard_state`.
        state: what a worker keeps from batch to batch, see `Worker.keep`.
    """

    pull: Fields
    push: Fields
    mirror: Fields = field(default_factory=dict)
    shard_state: Fields = field(default_factory=dict)
    state: Fields = field(default_factory=dict)

    @property
    def pushed(self) -> Fields:
        """All that a worker sends, what is for the server's copy of its state too."""
        return {**self.push, **self.mirror}


class Round(NamedTuple):
    """The tensors of the messages of one round of a barrier, as a `Layout` has them.

    Attributes:
        broadcast: what the server sends to every worker.
        answer: the answer for each shard; empty if the round has no answers.
    """

    broadcast: Fields
    answer: Fields


class Worker(ABC):
    """The worker half of a parameter-server method.

    Attributes:
        interchangeable: whether any worker's half does for every worker, as what they send follows from the arguments
            from what was broadcast to all, and from `keep`. Halves that keep something else of their own, of their
            shards or of their last batches, are not. A subclass that has calls of its own says it anew.
    """

    interchangeable: ClassVar[bool] = False

    @abstractmethod
    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Turn the pulled message and a batch into the message to push.

        Called for each batch that came with the pull, if there are several (`ParameterServer.period`): `batch.step`
        counts them, and what the call for the last of them returns is pushed.

        The returned tensors may be borrowed from the oracle or from `pulled`; they are valid until the next call.
        """

    def keep(self, state: Message) -> None:  # noqa: B027 (most workers keep nothing)
        """Take over the tensors of `Layout.state`, zeros in a run that begins; `work` reads and changes them in place.

        An executor may hand over others that hold the same before any batch. They are saved with the run, and travel
        for that alone; those of a lost worker become zeros.
        """

    def adopt_shard(self, shard: range, message: Message) -> None:  # noqa: B027 (most workers keep nothing)
        """Take over a shard of the training set; `message` is what `ParameterServer.shard_state` returned for it."""

    def receive(self, number: int, message: Message) -> None:  # noqa: B027 (most methods have no barriers)
        """Take in what the server broadcasts in round `number` of a barrier; copy what is needed later."""

    def answer(self, oracle: Oracle, number: int, shard: Batch) -> Message:
        """Return the contribution of a shard to round `number`, after `receive`; the server gets the sum over shards.

        It must depend on what was received and on the shard alone, for another worker answers for a lost one's shard.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rounds with answers")

    def restore(self, message: Message) -> None:  # noqa: B027
        """Take in what `ParameterServer.restore` returned: the state that this half had when the run was saved."""


class ParameterServer(Stateful):
    """The server half of a method on a parameter server; executors call it for one message at a time.

    A barrier comes after `barrier_from` pushes and then after every `barrier_every`, but not at the end of the run. It
    goes so: no worker gets a batch until all pushes so far have arrived. Then come the method's rounds. In a round
    every worker receives a message; if the round has answers, each of the M fixed shards of the training set is
    answered for, and `collect` gets the sum. Then all workers pull anew. A barrier without rounds only refreshes their
    weights.

    Attributes:
        at_rest: whether real workers must have pushed what they compute before weights are evaluated and saved.
        period: most batches that a worker gets with a pull, and takes local steps on before it pushes (see `steps`);
            it gets fewer if no more are left at the end of the run. With barriers, 1.
        stops: whether the server may tell workers to stop what they compute, see `recalled`.
        w: the flat weights, valid after `start`.
    """

    has_server: ClassVar[bool] = True
    at_rest: ClassVar[bool] = False
    period: int = 1
    stops: bool = False

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

    def admits(self, worker: int) -> bool:
        """Return whether `worker` gets a batch now; if not, its reply is withheld: it waits for others to catch up.

        Asked when a worker comes for its first batch or has pushed, and of those that wait again after every push and
        loss, in the order of their numbers. The answer must follow from what the server half was told, and be True for
        one worker at least where none computes.
        """
        return True

    def steps(self, worker: int) -> int:
        """Return how many batches `worker` gets with its next pull, from 1 to `period`; callable before `start`."""
        return self.period

    def announce(self, step: Step) -> None:
        """Learn the learning rate of the pulls that are answered next."""

    def shard_state(self, shard: range) -> Message:
        """Return what a worker half needs to take over a shard of the training set, see `Worker.adopt_shard`."""
        return {}

    def sent(self, worker: int) -> Message | None:
        """Return what the last `pull` of `worker` returned, if the server keeps it unchanged as a backup.

        Return None, the default, if it does not: an executor that needs the message after the next push then copies it.
        """
        return None

    @abstractmethod
    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        """Update the weights with what `worker` pushed.

        Returns:
            False if the weights stay as they are, because the push is ignored or only collected; True or None if they
            were updated. The staleness of later pushes counts updates, not pushes.
        """

    def recalled(self, staleness: Mapping[int, int]) -> Iterable[int]:
        """Return the workers that are to drop what they compute, and pull anew for the same batch.

        Called after each update of a method that `stops`. A worker that has pushed when it hears of it drops nothing:
        its push comes in as any other. Nothing is counted of what is dropped, and tensors of `Layout.state` are again
        as before; `Worker.work` is left at one of its gradients, so a half that keeps something else must bear that.

        Args:
            staleness: of each worker that computes, and was not told yet, how many updates were made since its pull.
        """
        return ()

    def weights_of(self, worker: int) -> Tensor:
        """Return the weights that a push of `worker` updates: `w`, or its own where each worker has some."""
        return self.w

    def lost(self, worker: int) -> None:
        """Learn that `worker` is gone, and pushes no more: take its share out of what is kept over all workers.

        Called between two messages, after the worker's last push and before its batch and its shards are handed on; in
        a replay at the same place. In a run that is resumed it begins anew like all others.
        """

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

    def restoring(self, n: int) -> Fields:
        """Return the fields of what `restore` returns for `n` weights; empty if worker halves keep no state."""
        return {}

    def restore(self, worker: int) -> Message:
        """Return what `worker`'s half has to know when a run is resumed; it may alias live state.

        Called after `load_state`; executors hand it to every half before anything else.
        """
        return {}

    def solution(self) -> Tensor:
        """Return the flat weights that are evaluated, saved and hashed."""
        return self.w
