"""The worker halves of a simulated parameter server in compute processes, which work on all that is in flight.

A half that keeps nothing of its own does for every worker, in any process. Others stay in one process, where their
state is, as on real processes; a checkpoint needs nothing of it, for the server can restore every half.

On CPUs what workers pull lies in the shared memory from the first: there the server keeps its backups. On GPUs it is
copied there after each pull.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from algorithms.base import Batch, Fields, Layout, Message, ParameterServer, Worker
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.loop.batches import Batches
from runner.loop.messages import check_message
from runner.loop.worker_steps import take_steps
from runner.simulated.arena import Arena, NotShareable, Places, end_of, lay_out, lay_out_state, move_state
from runner.simulated.compute_pool import READY, ComputePool, PoolOptions, place_results
from runner.simulated.compute_process import Task
from runner.simulated.transfers import Transfers

WORK, ANSWER, RECEIVE, RESTORE, ADOPT, RENEW = range(READY + 1, READY + 7)
"""What a process is asked to do, besides to be there."""
KEPT = "kept "
"""What the name of a field of `Layout.state` begins with in the result of a batch."""


def work_fields(layout: Layout) -> Fields:
    """Return the tensors of a batch's result: what is pushed, and what the half keeps after it."""
    return {**layout.pushed, **{KEPT + name: declared for name, declared in layout.state.items()}}


def serves_all(half: Worker) -> bool:
    """Return whether a half does for every worker, see `algorithms.base.Worker.interchangeable`."""
    for kind in type(half).__mro__:
        if "interchangeable" in vars(kind):
            return kind.interchangeable
        # What a class says of its own calls does not hold for those that a subclass puts in their place.
        if any(name in vars(kind) for name in ("work", "receive", "answer", "adopt_shard", "restore")):
            return False
    return False


class ServerPlaces(NamedTuple):
    """What is where in the shared memory.

    Attributes:
        pulled: by worker, the message that it pulled last.
        kept: by worker, what its half keeps, as it was after the last push that was handled.
        mail: first byte of what is told to halves, one message at a time.
    """

    pulled: list[Places]
    kept: list[Places]
    mail: int


class PooledHalves:
    """Halves in compute processes; see `runner.simulated.halves.Halves`.

    Args:
        server: the method, started.
        options: of the processes.
        copies: by worker, what it pulled last, where the server does not keep it: from here on in the shared memory.
        states: by worker, what its half keeps; on CPUs in the shared memory too.
        totals: of the run, sums of losses, errors and samples (3,).
        statistics: of the run, running batch-norm statistics (k,).
        order: returns the workers that compute, in the order in which their pushes will be handled.
    """

    def __init__(
        self,
        server: ParameterServer,
        options: PoolOptions,
        *,
        copies: list[Message],
        states: list[Message],
        totals: Tensor,
        statistics: Tensor,
        order: Callable[[], Iterable[int]],
    ) -> None:
        n, self.dtype = server.w.numel(), server.w.dtype
        self.server = server
        self.workers = len(copies)
        self.copies = copies
        self.states = states
        self.totals = totals
        self.transfers = options.transfers
        self.layout = server.layout(n)
        self.rounds = server.rounds(n)
        self.restoring = server.restoring(n)
        self.interchangeable = serves_all(server.worker(0))
        state = lay_out_state(_backups(server, copies), 0) if self.transfers.in_place else {}
        offset, pulled = end_of(state, 0), list[Places]()
        for worker, copy in enumerate(copies):
            pulled.append(lay_out_state(copy if self.transfers.in_place else self._pulled(worker), offset))
            offset = end_of(pulled[-1], offset)
        kept = list[Places]()
        for own in states:
            kept.append(lay_out_state(own, offset))
            offset = end_of(kept[-1], offset)
        mail, mailed = offset, [*(part.broadcast for part in self.rounds), self.restoring, self.layout.shard_state]
        offset = max(end_of(lay_out(fields, mail, self.dtype), mail) for fields in mailed)
        fields = [work_fields(self.layout), *(part.answer for part in self.rounds)]
        *results, end = place_results(options, fields, statistics.numel(), offset)
        self.arena = Arena(end)
        if self.transfers.in_place:
            move_state(server, self.arena, state, keep=True)
            for worker, copy in enumerate(copies):
                copy.update(self.arena.tensors(pulled[worker]))
                if not copy:
                    pulled[worker] = self._sent(worker)
            for own, places in zip(states, kept, strict=True):
                shared = self.arena.tensors(places)
                for name, tensor in shared.items():
                    tensor.copy_(own[name])
                own.update(shared)
        self.places = ServerPlaces(pulled, kept, mail)
        self.pool = ComputePool(
            options, arena=self.arena, places=self.places, results=results, statistics=statistics.numel()
        )
        self.pool.order = order

    def _pulled(self, worker: int) -> Message:
        """Return what a worker pulled last."""
        return self.server.sent(worker) or self.copies[worker]

    def _sent(self, worker: int) -> Places:
        """Return where the server keeps what it sent a worker."""
        found = {name: self.arena.place_of(tensor) for name, tensor in (self.server.sent(worker) or {}).items()}
        places = {name: place for name, place in found.items() if place is not None}
        if len(places) < len(found):
            what = f"{type(self.server).__name__} keeps what it sent outside its state, where no other process sees it"
            raise NotShareable.because(what)
        return places

    def start(self) -> None:
        """See `Halves.start`."""
        self.pool.wait_ready()

    def close(self) -> None:
        """See `Halves.close`."""
        self.pool.close()

    def begin(self, worker: int, batches: Sequence[Batch], shards: Sequence[int]) -> None:
        """See `Halves.begin`: they can be computed on from now on."""
        if not self.transfers.in_place:
            self.transfers.share(self._pulled(worker), self.arena.tensors(self.places.pulled[worker]))
            self.transfers.share(self.states[worker], self.arena.tensors(self.places.kept[worker]))
            self.transfers.finish()
        elif self.server.sent(worker) and self._sent(worker) != self.places.pulled[worker]:
            what = f"{type(self.server).__name__} keeps what it sent elsewhere from push to push"
            raise NotShareable.because(what)
        numbers = [batch.number for batch in batches]
        self.pool.submit(worker, Task(WORK, (worker, len(numbers), *numbers, *shards)), self._process(worker))

    def proceed(self) -> None:
        """See `Halves.proceed`."""
        self.pool.begin()

    def drop(self, worker: int) -> None:
        """See `Halves.drop`."""
        self.pool.drop(worker)

    def work(self, worker: int, pulled: Message, batches: Sequence[Batch]) -> tuple[Message, Tensor]:
        """See `Halves.work`; it waits for what is being computed."""
        result = self.pool.result(worker, work_fields(self.layout))
        result.count(self.totals)
        assert result.message is not None
        # Only now: a checkpoint has what halves kept after pushes that were handled, not after those in flight.
        for name, tensor in self.states[worker].items():
            tensor.copy_(result.message.pop(KEPT + name))
        return result.message, result.statistics

    def taken(self, worker: int) -> None:
        """See `Halves.taken`."""
        self.pool.release(worker)

    def renew(self, workers: Iterable[int]) -> None:
        """See `Halves.renew`."""
        for worker in workers:
            self.pool.tell(Task(RENEW, (worker,)), self._process(worker))

    def adopt(self, worker: int, shard: range, message: Message) -> None:
        """See `Halves.adopt`."""
        self._mail(self.layout.shard_state, message)
        self.pool.tell(Task(ADOPT, (worker, shard.start, shard.stop)), self._process(worker))

    def restore(self, worker: int, message: Message) -> None:
        """See `Halves.restore`."""
        # The same for all where halves are interchangeable, and each process has one.
        if self.interchangeable and worker:
            return
        self._mail(self.restoring, message)
        self.pool.tell(Task(RESTORE, (worker,)), self._process(worker))

    def receive(self, workers: Sequence[int], number: int, message: Message) -> None:
        """See `Halves.receive`."""
        self._mail(self.rounds[number].broadcast, message)
        told = workers[:1] if self.interchangeable else workers
        for worker in told:
            self.pool.tell(Task(RECEIVE, (worker, number)), self._process(worker))

    def answers(self, number: int, shards: Sequence[Batch], workers: Sequence[int]) -> Iterator[Message]:
        """See `Halves.answers`; all are computed side by side."""
        # Nobody works on a batch at a barrier, so the numbers of the shards are free to be keys.
        for shard, (batch, worker) in enumerate(zip(shards, workers, strict=True)):
            task = Task(ANSWER, (worker, number, shard, (-1 - batch.number) // self.workers))
            self.pool.submit(shard, task, self._process(worker))
        for shard in range(len(shards)):
            result = self.pool.result(shard, self.rounds[number].answer)
            result.count(self.totals)
            assert result.message is not None
            yield result.message
            self.pool.release(shard)

    def _process(self, worker: int) -> int | None:
        """Return the process that has the half of a worker; None if all have."""
        return None if self.interchangeable else worker % len(self.pool)

    def _mail(self, fields: Fields, message: Message) -> None:
        """Put what is told to halves where they read it; whoever was told before has read it."""
        self.transfers.share(message, self.arena.tensors(lay_out(fields, self.places.mail, self.dtype)))
        self.transfers.finish()


def _backups(server: ParameterServer, copies: list[Message]) -> Message:
    """Return those tensors of the server's state in which it keeps what it sent."""
    kept = [tensor for worker, copy in enumerate(copies) if not copy for tensor in (server.sent(worker) or {}).values()]
    addresses = [tensor.data_ptr() for tensor in kept]
    return {
        name: tensor
        for name, tensor in server.state().items()
        if any(tensor.data_ptr() <= at < tensor.data_ptr() + tensor.nbytes for at in addresses)
    }


class ServerTasks:
    """What a compute process does for a method on a parameter server.

    Args:
        server: the method, unstarted: it makes the halves, and says what messages look like.
        oracle: gradients, of this process' own replica.
        batches: the run's batches.
        workers: number of workers M.
        transfers: of this process.
        arena: the shared memory.
        places: what is where in it.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        oracle: NetworkOracle,
        batches: Batches,
        workers: int,
        transfers: Transfers,
        arena: Arena,
        places: ServerPlaces,
    ) -> None:
        self.server = server
        self.transfers = transfers
        self.oracle = oracle
        self.batches = batches
        self.workers = workers
        weights = oracle.replica.weights
        n, self.dtype = weights.numel(), weights.dtype
        self.layout = server.layout(n)
        self.rounds = server.rounds(n)
        self.restoring = server.restoring(n)
        self.pulled = [arena.tensors(each) for each in places.pulled]
        self.kept = [arena.tensors(each) for each in places.kept]
        self.arena = arena
        self.mail = places.mail
        self.halves: dict[int, Worker] = {}
        self.interchangeable = serves_all(server.worker(0))

    def fields(self, call: int, numbers: Sequence[int]) -> Fields:
        """See `Tasks.fields`."""
        return work_fields(self.layout) if call == WORK else self.rounds[numbers[1]].answer

    def perform(self, task: Task) -> Message | None:
        """See `Tasks.perform`."""
        if task.call == READY:
            return None
        worker, *rest = task.numbers
        if task.call == WORK:
            return self._work(worker, *rest)
        if task.call == ANSWER:
            return self._answer(worker, *rest)
        if task.call == RENEW:
            self.halves.pop(self._key(worker), None)
        elif task.call == ADOPT:
            self._half(worker).adopt_shard(range(*rest), self._mailed(self.layout.shard_state))
        elif task.call == RESTORE:
            self._half(worker).restore(self._mailed(self.restoring))
        else:
            self._half(worker).receive(rest[0], self._mailed(self.rounds[rest[0]].broadcast))
        return None

    def _key(self, worker: int) -> int:
        return 0 if self.interchangeable else worker

    def _half(self, worker: int) -> Worker:
        key = self._key(worker)
        if key not in self.halves:
            self.halves[key] = self.server.worker(worker)
        return self.halves[key]

    def _mailed(self, fields: Fields) -> Message:
        return self.transfers.fetch(self.arena.tensors(lay_out(fields, self.mail, self.dtype)))

    def _work(self, worker: int, steps: int, *numbers: int) -> Message:
        # Only numbers come from the run's process: this one has the data, and knows which samples they mean.
        batches = self.batches.steps(numbers[:steps], shards=numbers[steps:])
        half = self._half(worker)
        # A copy: the half changes it, and what is in the shared memory belongs to the push before.
        state = {name: tensor.clone() for name, tensor in self.transfers.fetch(self.kept[worker]).items()}
        half.keep(state)
        pulled = self.transfers.fetch(self.pulled[worker])
        seed, fields = self.batches.seed, self.layout.pushed
        message = take_steps(half, self.oracle, pulled, batches, seed=seed, pushed=fields)
        return message | {KEPT + name: tensor for name, tensor in state.items()}

    def _answer(self, worker: int, number: int, shard: int, next_batch: int) -> Message:
        batch = self.batches.shard(shard, self.workers, next_batch)
        seed_generators(self.oracle.device, self.batches.seed, "answer", batch.number, number)
        half = self._half(worker)
        answer = half.answer(self.oracle, number, batch)
        return check_message(half, f"answer of round {number}", answer, self.rounds[number].answer, self.dtype)
