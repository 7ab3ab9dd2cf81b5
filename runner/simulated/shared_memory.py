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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch, Step
from algorithms.shared_memory import SharedMemory
from runner.config.units import FLOAT_BYTES
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import running_average
from runner.loop.barrier import next_barrier
from runner.loop.batches import Batches, Leases, coordinate_generator
from runner.loop.clock import Clock
from runner.loop.train_control import TrainControl
from runner.run_folder.timeline import Activity

PIECES = 8
"""Pieces in which a vector is read or written where that takes time."""


@dataclass
class Hand:
    """What one worker is at.

    Attributes:
        read: ŵ (n,), as far as it has been read.
        v: the direction that is being written (n,); None unless it is.
        chosen: the coordinates that are written; None for all.
        writing: whether the next event is a piece of the write, not of the read.
        piece: its number.
        version: updates of the shared weights when the read began.
        begin: virtual second of the task's start.
        end: of its last piece.
        tasks: tasks that this worker began.
        rate: learning rate of the write.
        statistics: batch-norm statistics of the batch.
    """

    read: Tensor
    v: Tensor | None = None
    chosen: Tensor | None = None
    writing: bool = False
    piece: int = 0
    version: int = 0
    begin: float = 0.0
    end: float = 0.0
    tasks: int = 0
    rate: float = 0.0
    statistics: Tensor = field(default_factory=lambda: torch.empty(0))


class SimulatedMemory:
    """Run a method on simulated workers that share their weights.

    Args:
        method: the method; started here, on a copy of the replica's weights.
        workers: number of workers M.
        oracle: gradients.
        batches: the run's batches, leased one by one.
        clock: virtual durations.
        control: counts, evaluation, checkpoints.
        activity: what each worker did when.
        seed: the run's seed, for the coordinates.
    """

    def __init__(
        self,
        method: SharedMemory,
        *,
        workers: int,
        oracle: NetworkOracle,
        batches: Batches,
        clock: Clock,
        control: TrainControl,
        activity: Activity,
        seed: int,
    ) -> None:
        self.method = method
        self.oracle = oracle
        self.batches = batches
        self.clock = clock
        self.control = control
        self.activity = activity
        self.seed = seed
        replica = oracle.replica
        method.start(replica.weights.clone(), workers)
        self.statistics = replica.initial_statistics()
        self.leases = Leases(batches)
        self.hands = [Hand(method.w.clone()) for _ in range(workers)]
        self.heap: list[tuple[float, int]] = []
        self.waiting: dict[int, float] = {}
        n = method.w.numel()
        self.read_seconds = clock.transfer_seconds(FLOAT_BYTES * n)
        self._resumed = False

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        control = self.control
        control.start()
        if not self._resumed:
            self.leases.quota = next_barrier(self.method, -1)
            for worker in range(len(self.hands)):
                self._begin(worker, 0.0)
        while not self.leases.finished:
            time, worker = heapq.heappop(self.heap)
            if self._step(worker, time):
                finished = self.leases.finished
                if control.due(finished):
                    control.evaluate(self.weights(), self.statistics, self.oracle.totals, self, finished)
        control.pause()

    def _begin(self, worker: int, now: float) -> None:
        """Hand out the next batch, unless all are to meet first; the last to come then has the snapshot taken."""
        batch = self.leases.lease(worker)
        if batch is None:
            self.waiting[worker] = now
            if self.leases.at_barrier and len(self.waiting) == len(self.hands):
                self._meet()
            return
        if self.oracle.streams:
            self.oracle.expect(batch)
        hand = self.hands[worker]
        hand.writing, hand.piece, hand.version, hand.begin = False, 0, self.control.updates, now
        self._read(worker)

    def _meet(self) -> None:
        """Take a snapshot: every worker computes the gradient of its shard, and all go on when the last is done."""
        workers, w = len(self.hands), self.method.w
        met, total, ends = max(self.waiting.values()), torch.zeros_like(w), []
        for worker, hand in enumerate(self.hands):
            shard = self.batches.shard(worker, workers, self.leases.next)
            total.add_(self.oracle.gradient_sum(w, shard))
            share = len(shard.ids) / self.batches.size
            seconds = self.clock.compute_seconds(worker, hand.tasks, share, self.method.barrier_cost.gradients)
            hand.tasks += 1
            self.activity.span(worker, "wait", self.waiting[worker], met)
            self.activity.span(worker, "compute", met, met + seconds)
            ends.append(met + seconds)
        self.method.snapshot(total.div_(self.batches.samples))
        self.control.spend(self.batches.samples * self.method.barrier_cost.gradients, max(ends))
        self.leases.quota = next_barrier(self.method, self.control.updates)
        self.waiting.clear()
        for worker, end in enumerate(ends):
            self.activity.span(worker, "wait", end, max(ends))
            self._begin(worker, max(ends))

    def _pieces(self, seconds: float) -> int:
        return PIECES if seconds else 1

    def _bounds(self, piece: int, pieces: int) -> slice:
        n = self.method.w.numel()
        return slice(n * piece // pieces, n * (piece + 1) // pieces)

    def _read(self, worker: int) -> None:
        """Read a piece; after the last one the worker computes."""
        hand, pieces = self.hands[worker], self._pieces(self.read_seconds)
        where = self._bounds(hand.piece, pieces)
        hand.read[where].copy_(self.method.w[where])
        hand.piece += 1
        if hand.piece < pieces:
            heapq.heappush(self.heap, (hand.begin + self.read_seconds * hand.piece / pieces, worker))
            return
        batch = self._held(worker)
        share = len(batch.ids) / self.batches.size
        begin = hand.begin + self.read_seconds
        computing = self.clock.compute_seconds(worker, hand.tasks, share, self.method.evaluations(batch.number))
        hand.tasks += 1
        hand.writing, hand.piece, hand.end = True, 0, begin + computing
        self.activity.span(worker, "transfer", hand.begin, begin)
        self.activity.span(worker, "compute", begin, hand.end)
        generator = coordinate_generator(self.seed, batch.number)
        chosen = self.method.coordinates(self.method.w.numel(), generator)
        hand.chosen = None if chosen is None else chosen.to(self.method.w.device)
        seconds = self._write_seconds(hand)
        heapq.heappush(self.heap, (hand.end + seconds / self._pieces(seconds), worker))

    def _write_seconds(self, hand: Hand) -> float:
        written = self.method.w.numel() if hand.chosen is None else len(hand.chosen)
        return self.clock.transfer_seconds(FLOAT_BYTES * written)

    def _step(self, worker: int, now: float) -> bool:
        """Read or write a worker's next piece; return whether an update is done with it."""
        hand = self.hands[worker]
        if not hand.writing:
            self._read(worker)
            return False
        if hand.piece == 0:
            self._direct(worker)
        assert hand.v is not None
        seconds = self._write_seconds(hand)
        pieces = self._pieces(seconds)
        self.method.write(self._of(hand.chosen, self._bounds(hand.piece, pieces)), hand.v, hand.rate)
        hand.piece += 1
        if hand.piece < pieces:
            heapq.heappush(self.heap, (hand.end + seconds * (hand.piece + 1) / pieces, worker))
            return False
        self.activity.span(worker, "transfer", hand.end, now)
        self._done(worker, now)
        self._begin(worker, now)
        return True

    def _direct(self, worker: int) -> None:
        """Compute what is written from now on."""
        hand, batch, rate = self.hands[worker], self._held(worker), self.control.rate()
        hand.rate = self.method.rate(batch, Step(lr=rate.lr, decay=rate.decay))
        v = self.method.direction(self.oracle, hand.read, batch)
        hand.statistics = self.oracle.replica.statistics
        if self._pieces(self._write_seconds(hand)) > 1:
            # Others compute before it is written to the end.
            v, hand.statistics = v.clone(), hand.statistics.clone()
        hand.v = v

    def _of(self, chosen: Tensor | None, piece: slice) -> Tensor | slice:
        """Return the chosen coordinates that lie in a piece."""
        if chosen is None:
            return piece
        low, high = torch.searchsorted(chosen, chosen.new_tensor([piece.start, piece.stop])).tolist()
        return chosen[low:high]

    def _done(self, worker: int, now: float) -> None:
        hand, control = self.hands[worker], self.control
        batch = self.leases.done(worker)
        running_average(self.statistics, hand.statistics)
        staleness = control.updates - hand.version
        self.activity.staleness(worker, staleness)
        hand.v = None
        gradients = len(batch.ids) * self.method.evaluations(batch.number)
        control.advance(gradients, now, self.oracle.totals, staleness)

    def _held(self, worker: int) -> Batch:
        return self.batches.batch(self.leases.held[worker])

    def columns(self) -> dict[str, float]:
        """Return what goes into a row besides the training control's own columns: nothing."""
        return {}

    def weights(self) -> Tensor:
        """Return the flat weights of the solution."""
        return self.method.solution()

    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        return self.statistics

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "method": self.method.state(),
            "hands": [{name: value for name, value in vars(hand).items() if value is not None} for hand in self.hands],
            "statistics": self.statistics,
            "totals": self.oracle.totals,
            "leases": self.leases.state_dict(),
            "heap": list(self.heap),
            "waiting": dict(self.waiting),
            "activity": self.activity.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        self.method.load_state(state["method"])
        device = self.method.w.device
        for hand, saved in zip(self.hands, state["hands"], strict=True):
            for name, value in saved.items():
                setattr(hand, name, value.to(device) if isinstance(value, Tensor) else value)
        self.statistics.copy_(state["statistics"])
        self.oracle.totals.copy_(state["totals"])
        self.leases.load_state_dict(state["leases"])
        self.heap = [(time, worker) for time, worker in state["heap"]]
        self.waiting = {int(worker): time for worker, time in state["waiting"].items()}
        self.activity.load_state_dict(state["activity"])
        self._resumed = True
