"""The worker halves of a simulated parameter server, in the process of the run: each works when its push is handled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from torch import Tensor

from algorithms.base import Batch, Message, ParameterServer, Worker
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.loop.batches import Batches
from runner.loop.messages import check_message
from runner.loop.worker_steps import take_steps


class Halves(Protocol):
    """The worker halves of a method, wherever they are."""

    def start(self) -> None:
        """Be ready to work; called before the run's clock of training starts."""
        ...

    def close(self) -> None:
        """Work no more."""
        ...

    def begin(self, worker: int, batches: Sequence[Batch], shards: Sequence[int]) -> None:
        """Learn that a worker has pulled, and its batches, which are drawn from `shards` where they are fixed."""
        ...

    def proceed(self) -> None:
        """Learn that the run does something else for a while: compute processes go on with what they can do."""
        ...

    def drop(self, worker: int) -> None:
        """Forget what a worker is at: nobody will ask for it."""
        ...

    def work(self, worker: int, pulled: Message, batches: Sequence[Batch]) -> tuple[Message, Tensor]:
        """Return what a worker pushes, and the batch-norm statistics of its batches (k,); valid until `taken`.

        What it counts enters the run's totals now.
        """
        ...

    def taken(self, worker: int) -> None:
        """Learn that what `work` returned was taken in."""
        ...

    def renew(self, workers: Iterable[int]) -> None:
        """Give workers new halves."""
        ...

    def adopt(self, worker: int, shard: range, message: Message) -> None:
        """See `algorithms.base.Worker.adopt_shard`."""
        ...

    def restore(self, worker: int, message: Message) -> None:
        """See `algorithms.base.Worker.restore`."""
        ...

    def receive(self, workers: Sequence[int], number: int, message: Message) -> None:
        """Hand what is broadcast in round `number` of a barrier to the halves of these workers."""
        ...

    def answers(self, number: int, shards: Sequence[Batch], workers: Sequence[int]) -> Iterator[Message]:
        """Yield the answers of round `number` for all shards, each by the half of its worker; valid until the next."""
        ...


class LocalHalves:
    """Halves in the process of the run; nothing is computed before it is asked for.

    Args:
        server: the method, started.
        workers: number of workers M.
        oracle: gradients, which counts into the run's totals by itself.
        batches: the run's batches.
        states: by worker, what its half keeps.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        workers: int,
        oracle: NetworkOracle,
        batches: Batches,
        states: Sequence[Message],
    ) -> None:
        self.server = server
        self.states = states
        self.oracle = oracle
        self.batches = batches
        self.dtype = server.w.dtype
        self.layout = server.layout(server.w.numel())
        self.rounds = server.rounds(server.w.numel())
        # Objects apart from the server, as on processes: they know only what messages tell them.
        self.halves: list[Worker] = [self._half(m) for m in range(workers)]

    def _half(self, worker: int) -> Worker:
        half = self.server.worker(worker)
        half.keep(self.states[worker])
        return half

    def start(self) -> None:
        """See `Halves.start`."""

    def close(self) -> None:
        """See `Halves.close`."""

    def begin(self, worker: int, batches: Sequence[Batch], shards: Sequence[int]) -> None:
        """See `Halves.begin`."""
        # Decoding begins while others compute.
        if self.oracle.streams:
            self.oracle.expect(batches[0])

    def proceed(self) -> None:
        """See `Halves.proceed`: nobody else computes."""

    def drop(self, worker: int) -> None:
        """See `Halves.drop`."""

    def work(self, worker: int, pulled: Message, batches: Sequence[Batch]) -> tuple[Message, Tensor]:
        """See `Halves.work`."""
        half, seed, fields = self.halves[worker], self.batches.seed, self.layout.pushed
        message = take_steps(half, self.oracle, pulled, batches, seed=seed, pushed=fields)
        return message, self.oracle.replica.statistics

    def taken(self, worker: int) -> None:
        """See `Halves.taken`."""

    def renew(self, workers: Iterable[int]) -> None:
        """See `Halves.renew`."""
        for worker in workers:
            self.halves[worker] = self._half(worker)

    def adopt(self, worker: int, shard: range, message: Message) -> None:
        """See `Halves.adopt`."""
        self.halves[worker].adopt_shard(shard, message)

    def restore(self, worker: int, message: Message) -> None:
        """See `Halves.restore`."""
        self.halves[worker].restore(message)

    def receive(self, workers: Sequence[int], number: int, message: Message) -> None:
        """See `Halves.receive`."""
        for worker in workers:
            self.halves[worker].receive(number, message)

    def answers(self, number: int, shards: Sequence[Batch], workers: Sequence[int]) -> Iterator[Message]:
        """See `Halves.answers`; one after the other, when it is asked for."""
        for shard, worker in zip(shards, workers, strict=True):
            seed_generators(self.oracle.device, self.batches.seed, "answer", shard.number, number)
            half = self.halves[worker]
            answer = half.answer(self.oracle, number, shard)
            yield check_message(half, f"answer of round {number}", answer, self.rounds[number].answer, self.dtype)
