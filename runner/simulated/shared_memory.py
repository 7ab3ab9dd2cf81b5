"""Workers that share one vector of weights in memory, in one process, on a virtual clock.

Reading the vector and writing to it take the seconds that `cluster.network` says for so many bytes, and happen piece by
piece in the order of addresses: what a worker reads is then of several ages, since others write in between (the thesis'
inconsistent read, eq. 2.6). Where they take no time they are whole. Nothing is locked: a write that begins while
another goes on interleaves with it, piece by piece. Ties go to the worker with the smaller number.

A gradient is evaluated when its write begins, from what was read; so a worker holds one vector that it read, and while
it writes one more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

from torch import Tensor

from algorithms.base import Batch, Message, Step
from algorithms.shared_memory import SharedMemory
from runner.config.units import FLOAT_BYTES
from runner.gradients.replica import running_average
from runner.loop.barrier import next_barrier
from runner.loop.batches import coordinate_generator
from runner.loop.leases import Leases
from runner.simulated.arena import NotShareable
from runner.simulated.compute_pool import PoolOptions
from runner.simulated.memory_clock import MemoryClock
from runner.simulated.memory_worker import SimulatedMemoryWorker, coordinates_within, piece_bounds, piece_count
from runner.simulated.virtual_executor import VirtualExecutor, VirtualParts
from runner.simulated.write_directions import LocalDirections, PooledDirections, WriteDirections


class SimulatedMemory(VirtualExecutor):
    """Run a method on simulated workers that share their weights.

    Args:
        method: the method; started here, on a copy of the replica's weights.
        workers: number of workers M.
        seed: the run's seed, for the coordinates.
        compute: other processes that compute; None to compute in this one.
        parts: see `VirtualExecutor`; the batches are leased one by one.
    """

    def __init__(
        self,
        method: SharedMemory,
        *,
        workers: int,
        seed: int,
        compute: PoolOptions | None = None,
        **parts: Unpack[VirtualParts],
    ) -> None:
        super().__init__(**parts)
        self.method = method
        self.seed = seed
        replica = self.oracle.replica
        method.start(replica.weights.clone(), workers)
        self.statistics = replica.initial_statistics()
        self.leases = Leases(self.batches)
        # Pairs, so that equal times are ordered by the worker's number: the same order on every run.
        self.heap: list[tuple[float, int]] = []
        self.compute = compute
        self.directions: WriteDirections = self._directions(workers)
        reads = [method.w.new_empty(method.w.shape) for _ in range(workers)]
        if isinstance(self.directions, PooledDirections):
            reads = self.directions.reads
        self.workers = [SimulatedMemoryWorker(read.copy_(method.w)) for read in reads]
        self.waiting: dict[int, float] = {}
        self.times = MemoryClock(self.clock, self.timeline, elements=method.w.numel())
        self._resumed = False

    def _directions(self, workers: int) -> WriteDirections:
        """Return who computes what is written: compute processes, or this one if there are none or none are allowed."""
        if self.compute is not None:
            shared = {"totals": self.oracle.totals, "statistics": self.statistics.numel(), "workers": workers}
            try:
                return PooledDirections(self.method, self.compute, order=self._in_order, **shared)
            except NotShareable as error:
                self.compute.give_up(error)
        return self._local_directions()

    def _local_directions(self) -> WriteDirections:
        return LocalDirections(self.method, oracle=self.oracle, batches=self.batches)

    def _in_order(self) -> Iterable[int]:
        return (worker for _, worker in sorted(self.heap))

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        try:
            self.directions.start()
            self._run()
        finally:
            self.directions.close()

    def _run(self) -> None:
        control = self.control
        control.start()
        if self._resumed:
            for worker, own in enumerate(self.workers):
                # Between the end of its read and the beginning of its write.
                if own.writing and own.piece == 0:
                    self._begin(worker, self._leased_batch(worker))
        else:
            self.leases.quota = next_barrier(self.method, -1)
            for worker in range(len(self.workers)):
                self._start_task(worker, 0.0)
        while not self.leases.finished:
            time, worker = heapq.heappop(self.heap)
            # Evaluated between two updates only; other workers' writes may be half done then.
            if self._advance(worker, time):
                finished = self.leases.finished
                if control.due(finished):
                    self.directions.proceed()
                    control.evaluate(self.weights(), self.statistics, self.oracle.totals, self, finished)
        control.pause()

    def _start_task(self, worker: int, now: float) -> None:
        """Hand out the next batch, unless all are to meet first; the last to come then has the snapshot taken."""
        batches = self.leases.lease(worker)
        # None left, or none before a barrier: the worker waits in either case.
        if not batches:
            self.waiting[worker] = now
            if self.leases.at_barrier and len(self.waiting) == len(self.workers):
                self._hold_barrier()
            return
        if self.oracle.streams:
            # Decoding begins while others compute; the gradient is evaluated when the write begins.
            self.oracle.expect(batches[0])
        own = self.workers[worker]
        own.writing, own.piece, own.version, own.begin = False, 0, self.control.updates, now
        self._read_piece(worker)

    def _hold_barrier(self) -> None:
        """Take a snapshot: every worker computes the gradient of its shard, and all go on when the last is done."""
        workers = len(self.workers)
        shards = [self.batches.shard(worker, workers, self.leases.next) for worker in range(workers)]
        total: Tensor | None = None
        for gradient in self._shard_gradients(shards):
            # In the order of the workers: the sum has the same bits whoever comes first. It begins with a shard, not
            # with zeros, as a parameter server's does: one worker has the bits of sequential SVRG.
            total = gradient.clone() if total is None else total.add_(gradient)
        assert total is not None
        # Taken while everybody waits: no write interleaves with it.
        self.method.snapshot(total.div_(self.batches.samples))
        cost = self.method.barrier_cost.gradients
        over = self.times.snapshot(self.waiting, [len(shard.ids) / self.batches.size for shard in shards], cost)
        self.control.spend(self.batches.samples * cost, over)
        self.leases.quota = next_barrier(self.method, self.control.updates)
        # Before anyone starts: a worker that starts may be the first to wait for the next barrier.
        self.waiting.clear()
        for worker in range(workers):
            self._start_task(worker, over)

    def _read_piece(self, worker: int) -> None:
        """Read a piece; after the last one the worker computes."""
        own, pieces = self.workers[worker], piece_count(self.times.read_seconds)
        where = piece_bounds(self.method.w.numel(), own.piece, pieces)
        # A piece is read at the beginning of its share of the seconds, and written at the end of it.
        own.read[where].copy_(self.method.w[where])
        own.piece += 1
        if own.piece < pieces:
            heapq.heappush(self.heap, (own.begin + self.times.read_seconds * own.piece / pieces, worker))
            return
        batch = self._leased_batch(worker)
        load = len(batch.ids) / self.batches.size
        own.end = self.times.compute(worker, own.begin, load, self.method.evaluations(batch.number))
        self.count_bytes(self.times.read_bytes)
        own.writing, own.piece = True, 0
        # By the batch alone, as on processes: both write the same coordinates.
        generator = coordinate_generator(self.seed, batch.number)
        chosen = self.method.coordinates(self.method.w.numel(), generator)
        own.coordinates = None if chosen is None else chosen.to(self.method.w.device)
        seconds = self.times.write_seconds(self._written(own))
        heapq.heappush(self.heap, (own.end + seconds / piece_count(seconds), worker))
        self._begin(worker, batch)

    def _begin(self, worker: int, batch: Batch) -> None:
        try:
            self.directions.begin(worker, batch)
        except NotShareable as error:
            self._compute_here(error)

    def _shard_gradients(self, shards: Sequence[Batch]) -> Iterator[Tensor]:
        try:
            return self.directions.shard_gradients(shards)
        except NotShareable as error:
            self._compute_here(error)
            return self.directions.shard_gradients(shards)

    def _compute_here(self, error: NotShareable) -> None:
        """Go on in this process, which has all that was read and the method's state, whoever was to compute."""
        if self.compute is None:
            raise error
        self.compute.give_up(error)
        self.directions.close()
        self.directions = self._local_directions()

    def _written(self, own: SimulatedMemoryWorker) -> int:
        return self.method.w.numel() if own.coordinates is None else len(own.coordinates)

    def _advance(self, worker: int, now: float) -> bool:
        """Read or write a worker's next piece; return whether an update is done with it."""
        own = self.workers[worker]
        if not own.writing:
            self._read_piece(worker)
            return False
        # When the write begins, from what was read: nothing of the direction is needed before.
        if own.piece == 0:
            self._compute_direction(worker)
        assert own.v is not None
        seconds = self.times.write_seconds(self._written(own))
        pieces = piece_count(seconds)
        piece = piece_bounds(self.method.w.numel(), own.piece, pieces)
        self.method.write(coordinates_within(own.coordinates, piece), own.v, own.rate)
        own.piece += 1
        if own.piece < pieces:
            heapq.heappush(self.heap, (own.end + seconds * (own.piece + 1) / pieces, worker))
            return False
        self.times.written(worker, own.end, now, self._written(own))
        self.count_bytes(FLOAT_BYTES * self._written(own))
        self._finish_update(worker, now)
        if pieces == 1:
            self.directions.taken(worker)
        # Before the update's evaluation, if one is due: the worker does not wait for it.
        self._start_task(worker, now)
        return True

    def _compute_direction(self, worker: int) -> None:
        """Compute what is written from now on."""
        own, batch, rate = self.workers[worker], self._leased_batch(worker), self.control.rate()
        # The rate of the moment when the gradient is evaluated, for all pieces of the write.
        own.rate = self.method.rate(batch, Step(lr=rate.lr, decay=rate.decay))
        v, own.statistics = self.directions.direction(worker, own.read, batch)
        if piece_count(self.times.write_seconds(self._written(own))) > 1:
            # Others compute before it is written to the end.
            v, own.statistics = v.clone(), own.statistics.clone()
            self.directions.taken(worker)
        own.v = v

    def _finish_update(self, worker: int, now: float) -> None:
        own, control = self.workers[worker], self.control
        (batch,) = self.leases.done(worker)
        # In the order in which writes end, which is the order in which updates are counted.
        running_average(self.statistics, own.statistics)
        # Updates that were finished since the read began; of those that are half written, none counts.
        staleness = control.updates - own.version
        self.timeline.staleness(worker, staleness)
        # It may be the oracle's own vector, which the next gradient overwrites.
        own.v = None
        gradients = len(batch.ids) * self.method.evaluations(batch.number)
        control.advance(gradients, now, self.oracle.totals, staleness)

    def _leased_batch(self, worker: int) -> Batch:
        return self.leases.held_batches(worker)[0]

    def weights(self) -> Tensor:
        """Return the flat weights of the solution."""
        return self.method.solution()

    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        return self.statistics

    def method_states(self) -> list[Message]:
        """Return the method's state of the one instance that serves all workers."""
        return [self.method.state()]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "method": self.method.state(),
            # Files have called the workers' states so since their first version.
            "hands": [
                {**state.state_dict(), "tasks": tasks}
                for state, tasks in zip(self.workers, self.times.tasks, strict=True)
            ],
            "statistics": self.statistics,
            "totals": self.oracle.totals,
            "leases": self.leases.state_dict(),
            "heap": list(self.heap),
            "waiting": dict(self.waiting),
            "activity": self.timeline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        self.method.load_state(state["method"])
        device = self.method.w.device
        for worker, saved in zip(self.workers, state["hands"], strict=True):
            worker.load_state_dict({name: value for name, value in saved.items() if name != "tasks"}, device)
        self.times.tasks = [saved["tasks"] for saved in state["hands"]]
        self.statistics.copy_(state["statistics"])
        self.oracle.totals.copy_(state["totals"])
        self.leases.load_state_dict(state["leases"])
        # The saved list is in the order of a heap already.
        self.heap = [(time, worker) for time, worker in state["heap"]]
        self.waiting = {int(worker): time for worker, time in state["waiting"].items()}
        self.timeline.load_state_dict(state["activity"])
        self._resumed = True
