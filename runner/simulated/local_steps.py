"""The local steps of a collective method's simulated workers: one by one, or side by side in compute processes.

Side by side, all processes have every worker's method, whose state lies in the shared memory: any of them can take any
worker's step, and the run's own process combines, applies, evaluates and saves with the same tensors. On GPUs the state
of each process is on its own device, and travels through the shared memory: to the process that takes a worker's step,
and back from it unless all workers have one state, which no local step changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from algorithms.base import Batch, Collective, Fields, Message, Step
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.loop.batches import Batches
from runner.loop.messages import check_message
from runner.simulated.arena import Arena, Places, check_moved, end_of, lay_out_state, move_state
from runner.simulated.compute_pool import READY, ComputePool, PoolOptions, place_results
from runner.simulated.compute_process import Task
from runner.simulated.transfers import Transfers

LOCAL = READY + 1
"""What a process is asked to do, besides to be there: a worker's local step."""


class LocalSteps(Protocol):
    """Takes the local steps of all workers, wherever they are computed."""

    def start(self) -> None:
        """Be ready; called before the run's clock of training starts."""
        ...

    def close(self) -> None:
        """Take no more steps."""
        ...

    def begin(self, number: int, steps: Sequence[Step]) -> None:
        """Begin the local step with this number; `steps` are what the workers' methods are told."""
        ...

    def local(self, rank: int, batch: Batch, step: Step) -> tuple[Message | None, Tensor]:
        """Return a worker's contribution and its batch's statistics (k,), valid until `taken`; its sums count now."""
        ...

    def taken(self, rank: int) -> None:
        """Learn that a worker's contribution was taken in."""
        ...

    def applied(self) -> None:
        """Learn that the methods have applied a combination, which changes their state."""
        ...


def method_of(methods: Sequence[Collective], rank: int) -> Collective:
    """Return a worker's instance, or the one that serves all."""
    return methods[rank if len(methods) > 1 else 0]


class LocalStepper:
    """Take each step in the run's own process, when it is asked for.

    Args:
        methods: the started instances.
        oracle: gradients, which counts into the run's totals by itself.
        batches: the run's batches.
        layout: the tensors of a contribution.
    """

    def __init__(
        self, methods: Sequence[Collective], *, oracle: NetworkOracle, batches: Batches, layout: Fields
    ) -> None:
        self.methods = methods
        self.oracle = oracle
        self.batches = batches
        self.layout = layout
        self._number = 0

    def start(self) -> None:
        """See `LocalSteps.start`."""

    def close(self) -> None:
        """See `LocalSteps.close`."""

    def begin(self, number: int, steps: Sequence[Step]) -> None:
        """See `LocalSteps.begin`."""
        self._number = number

    def local(self, rank: int, batch: Batch, step: Step) -> tuple[Message | None, Tensor]:
        """See `LocalSteps.local`."""
        method = method_of(self.methods, rank)
        seed_generators(self.oracle.device, self.batches.seed, "local", self._number, rank)
        message = method.local(self.oracle, batch, step)
        if message is not None:
            check_message(method, "contribution", message, self.layout, method.w.dtype)
        return message, self.oracle.replica.statistics

    def taken(self, rank: int) -> None:
        """See `LocalSteps.taken`."""

    def applied(self) -> None:
        """See `LocalSteps.applied`: the steps are taken by the same methods."""


class PooledStepper:
    """Take all workers' steps side by side in compute processes.

    Args:
        methods: the started instances, whose state is moved to the shared memory; none lives in a replica.
        options: of the processes.
        totals: of the run, sums of losses, errors and samples (3,).
        statistics: number k of batch-norm statistics.
        layout: the tensors of a contribution.
    """

    def __init__(
        self,
        methods: Sequence[Collective],
        options: PoolOptions,
        *,
        totals: Tensor,
        statistics: int,
        layout: Fields,
    ) -> None:
        self.methods = methods
        self.totals = totals
        self.layout = layout
        self.transfers = options.transfers
        # What was applied here, or loaded before the first step, the processes do not know; of other steps they do.
        self._changed = True
        self.places, offset = list[Places](), 0
        for method in methods:
            self.places.append(lay_out_state(method.state(), offset))
            offset = end_of(self.places[-1], offset)
        *results, end = place_results(options, [layout], statistics, offset)
        self.arena = Arena(end)
        if self.transfers.in_place:
            for method, places in zip(methods, self.places, strict=True):
                move_state(method, self.arena, places, keep=True)
        self.pool = ComputePool(options, arena=self.arena, places=self.places, results=results, statistics=statistics)

    def start(self) -> None:
        """See `LocalSteps.start`."""
        self.pool.wait_ready()

    def close(self) -> None:
        """See `LocalSteps.close`."""
        self.pool.close()

    def begin(self, number: int, steps: Sequence[Step]) -> None:
        """See `LocalSteps.begin`."""
        for method, places in zip(self.methods, self.places, strict=True):
            if self.transfers.in_place:
                check_moved(method, self.arena, places)
            elif self._changed:
                self.transfers.share(method.state(), self.arena.tensors(places))
        self.transfers.finish()
        self._changed = False
        for rank, step in enumerate(steps):
            self.pool.submit(rank, Task(LOCAL, (rank, number), (step.lr, step.decay, step.relative_size)))

    def local(self, rank: int, batch: Batch, step: Step) -> tuple[Message | None, Tensor]:
        """See `LocalSteps.local`; it waits for what is being computed."""
        result = self.pool.result(rank, self.layout)
        result.count(self.totals)
        if len(self.methods) > 1:
            self.transfers.fetch_into(self.arena.tensors(self.places[rank]), self.methods[rank].state())
        return result.message, result.statistics

    def taken(self, rank: int) -> None:
        """See `LocalSteps.taken`."""
        self.pool.release(rank)

    def applied(self) -> None:
        """See `LocalSteps.applied`."""
        self._changed = True


class StepTasks:
    """What a compute process does for a collective method.

    Args:
        methods: unstarted instances, as many as the run's own process has.
        oracle: gradients, of this process' own replica.
        batches: the run's batches.
        workers: number of workers M.
        compiled: fuse the update rule.
        transfers: of this process.
        arena: the shared memory.
        places: by instance, where its state lies there.
    """

    def __init__(
        self,
        methods: Sequence[Collective],
        *,
        oracle: NetworkOracle,
        batches: Batches,
        workers: int,
        compiled: bool,
        transfers: Transfers,
        arena: Arena,
        places: Sequence[Places],
    ) -> None:
        self.transfers = transfers
        self.methods = methods
        self.oracle = oracle
        self.batches = batches
        self.workers = workers
        self.arena = arena
        self.places = places
        weights = oracle.replica.weights
        self.layout = methods[0].layout(weights.numel())
        for rank, method in enumerate(methods):
            method.start(weights.clone(), rank, workers, compiled)
            if transfers.in_place:
                move_state(method, arena, places[rank], keep=False)
        # By instance, the number of the step at whose beginning its state was fetched.
        self._fetched = dict[int, int]()

    def fields(self, call: int, numbers: Sequence[int]) -> Fields:
        """See `Tasks.fields`."""
        return self.layout

    def perform(self, task: Task) -> Message | None:
        """See `Tasks.perform`."""
        if task.call == READY:
            return None
        rank, number = task.numbers
        lr, decay, relative_size = task.reals
        instance = rank if len(self.methods) > 1 else 0
        method = self.methods[instance]
        batch = self.batches.shares(number, self.workers)[rank]
        self._fetch_state(instance, number)
        seed_generators(self.oracle.device, self.batches.seed, "local", number, rank)
        message = method.local(self.oracle, batch, Step(lr=lr, decay=decay, relative_size=relative_size))
        self._share_state(instance)
        if message is not None:
            check_message(method, "contribution", message, self.layout, method.w.dtype)
        return message

    def _fetch_state(self, instance: int, number: int) -> None:
        """Have the state that a method has at the beginning of a step; one that serves several workers has it once."""
        if self._fetched.get(instance) != number:
            self.transfers.fetch_into(self.arena.tensors(self.places[instance]), self.methods[instance].state())
            self._fetched[instance] = number

    def _share_state(self, instance: int) -> None:
        """Let the run have the state that a local step has left."""
        if self.transfers.in_place:
            check_moved(self.methods[instance], self.arena, self.places[instance])
        elif len(self.methods) > 1:
            self.transfers.share(self.methods[instance].state(), self.arena.tensors(self.places[instance]))
