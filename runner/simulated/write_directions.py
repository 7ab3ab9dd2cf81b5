"""What simulated workers of a shared memory write: computed one after the other, or side by side in compute processes.

What a worker read is known when its read is over, and nobody changes a snapshot while somebody computes: so a direction
may be computed from then on until its write begins.

On CPUs workers read into the shared memory. On GPUs what they read is copied there when a read is over, and the
method's state before a snapshot and after it; a direction looks at nothing that a write changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from algorithms.base import Batch, Fields, Message
from algorithms.shared_memory import SharedMemory
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.loop.batches import Batches
from runner.simulated.arena import Arena, Place, Places, check_moved, end_of, lay_out_state, move_state, stacked
from runner.simulated.compute_pool import READY, ComputePool, PoolOptions, place_results
from runner.simulated.compute_process import Task
from runner.simulated.transfers import Transfers

DIRECTION, SHARD = READY + 1, READY + 2
"""What a process is asked for, besides to be there: what a worker writes, or the gradient of a shard."""


class MemoryPlaces(NamedTuple):
    """What is where in the memory of the processes.

    Attributes:
        state: the method's state, the shared weights among it.
        reads: by worker, what it read last.
    """

    state: Places
    reads: Sequence[Place]


class WriteDirections(Protocol):
    """Computes what workers write, wherever that is."""

    def start(self) -> None:
        """Be ready; called before the run's clock of training starts."""
        ...

    def close(self) -> None:
        """Compute no more."""
        ...

    def begin(self, worker: int, batch: Batch) -> None:
        """Learn that a worker has read all that it computes on."""
        ...

    def proceed(self) -> None:
        """Learn that the run does something else for a while: compute processes go on with what they can do."""
        ...

    def direction(self, worker: int, read: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return v (n,) and the batch's statistics (k,), valid until `taken`; its sums count now."""
        ...

    def taken(self, worker: int) -> None:
        """Learn that what `direction` returned is needed no more."""
        ...

    def shard_gradients(self, shards: Sequence[Batch]) -> Iterator[Tensor]:
        """Yield the sums of the gradients (n,) at the shared weights on shards; each is valid until the next."""
        ...


class LocalDirections:
    """Compute in the run's own process, when it is asked for.

    Args:
        method: the started instance of all workers.
        oracle: gradients, which counts into the run's totals by itself.
        batches: the run's batches.
    """

    def __init__(self, method: SharedMemory, *, oracle: NetworkOracle, batches: Batches) -> None:
        self.method = method
        self.oracle = oracle
        self.batches = batches

    def start(self) -> None:
        """See `WriteDirections.start`."""

    def close(self) -> None:
        """See `WriteDirections.close`."""

    def begin(self, worker: int, batch: Batch) -> None:
        """See `WriteDirections.begin`."""

    def proceed(self) -> None:
        """See `WriteDirections.proceed`: nobody else computes."""

    def direction(self, worker: int, read: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `WriteDirections.direction`."""
        seed_generators(self.method.w.device, self.batches.seed, "work", batch.number)
        return self.method.direction(self.oracle, read, batch), self.oracle.replica.statistics

    def taken(self, worker: int) -> None:
        """See `WriteDirections.taken`."""

    def shard_gradients(self, shards: Sequence[Batch]) -> Iterator[Tensor]:
        """See `WriteDirections.shard_gradients`."""
        return (self.oracle.gradient_sum(self.method.w, shard) for shard in shards)


class PooledDirections:
    """Compute in compute processes, as soon as a read is over.

    Args:
        method: the started instance of all workers, whose state is moved to the processes' memory.
        options: of the processes.
        workers: number of workers M.
        totals: of the run, sums of losses, errors and samples (3,).
        statistics: number k of batch-norm statistics.
        order: returns the workers in the order of what they do next.

    Attributes:
        reads: by worker, where it is to read to (n,).
        state_version: counts how often the state was copied to the shared memory, so that processes know of it.
    """

    def __init__(
        self,
        method: SharedMemory,
        options: PoolOptions,
        *,
        workers: int,
        totals: Tensor,
        statistics: int,
        order: Callable[[], Iterable[int]],
    ) -> None:
        self.method = method
        self.workers = workers
        self.totals = totals
        self.layout = _layout(method)
        self.transfers = options.transfers
        state = lay_out_state(method.state(), 0)
        reads = stacked(Place(end_of(state, 0), tuple(method.w.shape), method.w.dtype), workers)
        *results, end = place_results(options, [self.layout], statistics, reads[-1].end)
        self.arena = Arena(end)
        self._shared_reads = [self.arena.tensor(place) for place in reads]
        if self.transfers.in_place:
            move_state(method, self.arena, state, keep=True)
            self.reads = self._shared_reads
        else:
            self.reads = [method.w.clone() for _ in range(workers)]
        self.places = MemoryPlaces(state, reads)
        self.state_version = 0
        self._stale = not self.transfers.in_place
        self.pool = ComputePool(options, arena=self.arena, places=self.places, results=results, statistics=statistics)
        self.pool.order = order

    def start(self) -> None:
        """See `WriteDirections.start`."""
        self.pool.wait_ready()

    def close(self) -> None:
        """See `WriteDirections.close`."""
        self.pool.close()

    def begin(self, worker: int, batch: Batch) -> None:
        """See `WriteDirections.begin`."""
        if self.transfers.in_place:
            check_moved(self.method, self.arena, self.places.state)
        else:
            if self._stale:
                self._share_state()
            self.transfers.share({"read": self.reads[worker]}, {"read": self._shared_reads[worker]})
            self.transfers.finish()
        self.pool.submit(worker, Task(DIRECTION, (worker, batch.number, self.state_version)))

    def _share_state(self) -> None:
        """Copy the method's state to the shared memory; nobody computes now."""
        self.transfers.share(self.method.state(), self.arena.tensors(self.places.state))
        self.transfers.finish()
        self.state_version += 1
        self._stale = False

    def proceed(self) -> None:
        """See `WriteDirections.proceed`."""
        self.pool.begin()

    def direction(self, worker: int, read: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `WriteDirections.direction`; it waits for what is being computed."""
        result = self.pool.result(worker, self.layout)
        result.count(self.totals)
        assert result.message is not None
        return result.message["v"], result.statistics

    def taken(self, worker: int) -> None:
        """See `WriteDirections.taken`."""
        self.pool.release(worker)

    def shard_gradients(self, shards: Sequence[Batch]) -> Iterator[Tensor]:
        """See `WriteDirections.shard_gradients`; all are computed side by side."""
        if self.transfers.in_place:
            check_moved(self.method, self.arena, self.places.state)
        else:
            # Writes have changed the weights; and what comes of this will change the snapshot.
            self._share_state()
            self._stale = True
        return self._shard_gradients(shards)

    def _shard_gradients(self, shards: Sequence[Batch]) -> Iterator[Tensor]:
        # Nobody computes anything else at a barrier, so the numbers of the shards are free to be keys.
        for shard, batch in enumerate(shards):
            numbers = (shard, (-1 - batch.number) // self.workers, self.state_version)
            self.pool.submit(shard, Task(SHARD, numbers))
        for shard in range(len(shards)):
            result = self.pool.result(shard, self.layout)
            result.count(self.totals)
            assert result.message is not None
            yield result.message["v"]
            self.pool.release(shard)


def _layout(method: SharedMemory) -> Fields:
    return {"v": method.w.numel()}


class MemoryTasks:
    """What a compute process does for a method on shared memory.

    Args:
        method: the method, unstarted.
        oracle: gradients, of this process' own replica.
        batches: the run's batches.
        workers: number of workers M.
        transfers: of this process.
        arena: the memory of the processes.
        places: what is where in it.
    """

    def __init__(
        self,
        method: SharedMemory,
        *,
        oracle: NetworkOracle,
        batches: Batches,
        workers: int,
        transfers: Transfers,
        arena: Arena,
        places: MemoryPlaces,
    ) -> None:
        self.method = method
        self.oracle = oracle
        self.batches = batches
        self.workers = workers
        self.transfers = transfers
        method.start(oracle.replica.weights.clone(), workers)
        if transfers.in_place:
            move_state(method, arena, places.state, keep=False)
        self.arena, self.places = arena, places
        self.state = arena.tensors(places.state)
        self.state_version = 0
        self.reads = [arena.tensor(place) for place in places.reads]
        self.layout = _layout(method)

    def fields(self, call: int, numbers: Sequence[int]) -> Fields:
        """See `Tasks.fields`."""
        return self.layout

    def perform(self, task: Task) -> Message | None:
        """See `Tasks.perform`."""
        if task.call == READY:
            return None
        worker, number, version = task.numbers
        if version != self.state_version:
            self.transfers.fetch_into(self.state, self.method.state())
            self.state_version = version
        if task.call == SHARD:
            shard = self.batches.shard(worker, self.workers, number)
            return {"v": self.oracle.gradient_sum(self.method.w, shard)}
        seed_generators(self.oracle.device, self.batches.seed, "work", number)
        read = self.transfers.fetch({"read": self.reads[worker]})["read"]
        v = self.method.direction(self.oracle, read, self.batches.batch(number))
        if self.transfers.in_place:
            check_moved(self.method, self.arena, self.places.state)
        return {"v": v}
