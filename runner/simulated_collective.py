"""The workers of a collective method in one process, on a virtual clock.

Every worker takes its local step; where that yields a contribution, all wait for the slowest, the all-reduce takes the
time that the network model says, and the mean is applied at once or, for methods with a `delay`, that many local steps
later, travelling meanwhile. Where all workers hold equal weights at all times (`replicated`) one copy serves them all.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from torch import Tensor

from algorithms.base import Batch, Collective, Message, Step
from runner.activity import Activity
from runner.batches import Batches
from runner.clock import Clock
from runner.course import Course
from runner.oracle import NetworkOracle
from runner.replica import running_average

FLOAT_BYTES = 4


class Travelling(NamedTuple):
    """A combination on its way: applied after local step `due`, there at virtual second `arrival`."""

    due: int
    arrival: float
    combined: Message


class SimulatedCollective:
    """Run a collective method on simulated workers.

    Args:
        methods: one instance for each worker, or a single one where the method is `replicated`; started here.
        workers: number of workers M.
        oracle: gradients.
        batches: the run's batches of M times the batch size, cut into shares.
        clock: virtual durations.
        course: counts, evaluation, checkpoints.
        activity: what each worker did when.
        compiled: fuse the update rule.
    """

    def __init__(
        self,
        methods: list[Collective],
        *,
        workers: int,
        oracle: NetworkOracle,
        batches: Batches,
        clock: Clock,
        course: Course,
        activity: Activity,
        compiled: bool = False,
    ) -> None:
        self.methods = methods
        self.workers = workers
        self.oracle = oracle
        self.batches = batches
        self.clock = clock
        self.course = course
        self.activity = activity
        replica = oracle.replica
        for rank, method in enumerate(methods):
            # A single copy lives in the replica itself, which saves copying the weights there for every gradient.
            method.start(replica.weights if len(methods) == 1 else replica.weights.clone(), rank, workers, compiled)
        self.statistics = replica.initial_statistics().repeat(workers, 1)
        layout = methods[0].layout(replica.weights.numel())
        self.allreduce_seconds = clock.allreduce_seconds(FLOAT_BYTES * sum(layout.values()), workers)
        self.now = [0.0] * workers
        self.step = 0
        self.travelling: deque[Travelling] = deque()

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        course = self.course
        course.start()
        while self.step < len(self.batches):
            self._step(self.batches.shares(self.step, self.workers))
            self.step += 1
            finished = self.step == len(self.batches)
            if course.due(finished):
                course.evaluate(self.weights(), self.running_statistics(), self.oracle.totals, self, finished)
        course.pause()

    def _step(self, shares: list[Batch]) -> None:
        rate = self.course.rate()
        step = Step(lr=rate.lr, decay=rate.decay)
        samples = sum(len(batch.ids) for batch in shares)
        combined: Message | None = None
        for rank, batch in enumerate(shares):
            share = 1.0 if samples == self.workers * len(batch.ids) else len(batch.ids) * self.workers / samples
            method = self.methods[rank if len(self.methods) > 1 else 0]
            message = method.local(self.oracle, batch, step._replace(share=share))
            if len(batch.ids):
                running_average(self.statistics[rank], self.oracle.replica.statistics)
            combined = self._add(combined, message)
            begin = self.now[rank]
            load = len(batch.ids) * self.workers / self.batches.size
            self.now[rank] += self.clock.compute_seconds(rank, self.step, load, method.cost.gradients)
            self.activity.span(rank, "compute", begin, self.now[rank])
        if combined is not None:
            self._send(combined)
        while self.travelling and self.travelling[0].due == self.step:
            self._receive(self.travelling.popleft(), step)
        self.course.advance(samples * self.methods[0].cost.gradients, max(self.now), self.oracle.totals)

    def _add(self, total: Message | None, message: Message | None) -> Message | None:
        """Sum contributions in the order of the ranks; a single worker's is handed on as it is."""
        if message is None or self.workers == 1:
            return message
        if total is None:
            return {name: tensor.clone() for name, tensor in message.items()}
        for name, tensor in message.items():
            total[name].add_(tensor)
        return total

    def _send(self, combined: Message) -> None:
        if self.workers > 1:
            for tensor in combined.values():
                tensor.div_(self.workers)
        begin = max(self.now)
        if not self.methods[0].delay:
            for rank, now in enumerate(self.now):
                self.activity.span(rank, "wait", now, begin)
                self.activity.span(rank, "transfer", begin, begin + self.allreduce_seconds)
            self.now = [begin + self.allreduce_seconds] * self.workers
        elif self.workers == 1:
            combined = {name: tensor.clone() for name, tensor in combined.items()}
        arrival = begin + self.allreduce_seconds
        self.travelling.append(Travelling(self.step + self.methods[0].delay, arrival, combined))

    def _receive(self, travelling: Travelling, step: Step) -> None:
        for rank, now in enumerate(self.now):
            if travelling.arrival > now:
                self.activity.span(rank, "wait", now, travelling.arrival)
                self.now[rank] = travelling.arrival
        for method in self.methods:
            method.apply(travelling.combined, step)

    def weights(self) -> Tensor:
        """Return the flat weights of the solution: the workers' mean."""
        if len(self.methods) == 1:
            return self.methods[0].solution()
        mean = self.methods[0].solution().clone()
        for method in self.methods[1:]:
            mean.add_(method.solution())
        return mean.div_(len(self.methods))

    def running_statistics(self) -> Tensor:
        """Return the workers' mean running batch-norm statistics (k,)."""
        return self.statistics.mean(0)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "methods": [method.state() for method in self.methods],
            "statistics": self.statistics,
            "totals": self.oracle.totals,
            "now": self.now,
            "step": self.step,
            "travelling": [list(item) for item in self.travelling],
            "activity": self.activity.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        for method, saved in zip(self.methods, state["methods"], strict=True):
            method.load_state(saved)
        self.statistics.copy_(state["statistics"])
        self.oracle.totals.copy_(state["totals"])
        self.now = list(state["now"])
        self.step = state["step"]
        device = self.statistics.device
        self.travelling = deque(
            Travelling(due, arrival, {name: tensor.to(device) for name, tensor in combined.items()})
            for due, arrival, combined in state["travelling"]
        )
        self.activity.load_state_dict(state["activity"])

