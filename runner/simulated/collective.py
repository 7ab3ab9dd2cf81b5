"""The workers of a collective method in one process, on a virtual clock.

Every worker takes its local step; where that yields a contribution, the contributions of all are combined from the time
of the slowest on, for as long as the network model says, and the combination is applied at once or, for methods with a
`delay`, that many local steps later, travelling meanwhile. Where each worker combines with its neighbours alone
("mix"), that holds for each worker and its neighbours. Where all workers hold equal weights at all times (`replicated`)
one copy serves them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from algorithms.base import Batch, Collective, Message, Step
from runner.gradients.randomness import seed_generators
from runner.gradients.replica import running_average
from runner.loop.batches import relative_size
from runner.loop.communication import disagreement, distances
from runner.loop.messages import check_averaged, check_message, check_states
from runner.loop.mixing import Mixing
from runner.simulated.arena import NotShareable
from runner.simulated.collective_clock import Seconds, clock_of
from runner.simulated.compute_pool import PoolOptions
from runner.simulated.local_steps import LocalStepper, LocalSteps, PooledStepper, method_of
from runner.simulated.virtual_executor import VirtualExecutor, VirtualParts


class TimedCombination(NamedTuple):
    """A combination on its way from virtual second `begin` to `arrival`, to be applied after local step `due`.

    One that workers mix is the contributions of all by rank, as one that they gather, with seconds of each worker.
    """

    due: int
    begin: Seconds
    arrival: Seconds
    combined: Message


class SimulatedCollective(VirtualExecutor):
    """Run a collective method on simulated workers.

    Args:
        methods: one instance for each worker, or a single one where the method is `replicated`; started here.
        workers: number of workers M.
        compiled: fuse the update rule.
        compute: other processes that compute; None to compute in this one.
        parts: see `VirtualExecutor`.
    """

    def __init__(
        self,
        methods: list[Collective],
        *,
        workers: int,
        compiled: bool = False,
        compute: PoolOptions | None = None,
        **parts: Unpack[VirtualParts],
    ) -> None:
        super().__init__(**parts)
        self.methods = methods
        self.workers = workers
        replica = self.oracle.replica
        for rank, method in enumerate(methods):
            # A single copy lives in the replica itself, which saves copying the weights there for every gradient.
            alone = len(methods) == 1 and compute is None
            method.start(replica.weights if alone else replica.weights.clone(), rank, workers, compiled)
        # One row a worker also where the weights are one: each normalises its own share of a batch.
        self.statistics = replica.initial_statistics().repeat(workers, 1)
        self.layout = methods[0].layout(replica.weights.numel())
        check_averaged(methods[0], self.layout)
        check_states(methods)
        self.times = clock_of(methods[0], self.clock, self.timeline, replica.weights.numel())
        self.mixing = Mixing(methods[0], workers) if methods[0].combine == "mix" else None
        self.step = 0
        self.travelling: deque[TimedCombination] = deque()
        self._stacks: Message = {}
        self.compute = compute
        self.steps: LocalSteps = self._steps()

    def _steps(self) -> LocalSteps:
        """Return who takes local steps: compute processes, or this one if there are none or the method allows none."""
        if self.compute is not None:
            shared = {"totals": self.oracle.totals, "statistics": self.oracle.replica.statistics.numel()}
            try:
                return PooledStepper(self.methods, self.compute, layout=self.layout, **shared)
            except NotShareable as error:
                self.compute.give_up(error)
        return self._local_steps()

    def _local_steps(self) -> LocalSteps:
        return LocalStepper(self.methods, oracle=self.oracle, batches=self.batches, layout=self.layout)

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        try:
            self.steps.start()
            self._run()
        finally:
            self.steps.close()

    def _run(self) -> None:
        control = self.control
        control.start()
        while self.step < len(self.batches):
            shares = self.batches.shares(self.step, self.workers)
            # This step's batches and the next one's: the next are decoded on the CPU while these are computed on.
            if self.oracle.streams:
                upcoming = self.batches.shares(min(self.step + 1, len(self.batches) - 1), self.workers)
                for batch in (*shares, *upcoming):
                    self.oracle.expect(batch)
            self._step(shares)
            self.step += 1
            finished = self.step == len(self.batches)
            if control.due(finished):
                control.evaluate(self.weights(), self.running_statistics(), self.oracle.totals, self, finished)
        control.pause()

    def _step(self, shares: list[Batch]) -> None:
        rate = self.control.rate()
        step = Step(lr=rate.lr, decay=rate.decay)
        samples = sum(len(batch.ids) for batch in shares)
        combined: Message | None = None
        # An epoch's last batch may not divide evenly: a contribution weighs as many samples as it is of.
        relative = [relative_size(len(batch.ids), samples, self.workers) for batch in shares]
        steps = [step._replace(relative_size=size) for size in relative]
        if self.methods[0].early:
            # Before the local steps, which it travels beside.
            self._contribute(shares)
        self._begin(steps)
        # In the order of the ranks, which is the order of the sum: the same bits whoever is fastest on the clock.
        for rank, batch in enumerate(shares):
            message, statistics = self.steps.local(rank, batch, steps[rank])
            # Without samples the replica still holds another worker's statistics.
            if len(batch.ids):
                running_average(self.statistics[rank], statistics)
            if message is not None:
                combined = self._combine(combined, rank, message)
            self.steps.taken(rank)
        # A batch is that of all workers together, so an equal share of a full one is a load of 1.
        loads = [len(batch.ids) * self.workers / self.batches.size for batch in shares]
        self.times.compute(self.step, np.array(loads))
        # What all workers sent is complete here; the clock decides only when it arrives.
        if combined is not None:
            self._send(combined)
        # After this step's contribution was sent: without a delay it is due at once.
        while self.travelling and self.travelling[0].due == self.step:
            self._receive(self.travelling.popleft(), step)
        self.control.advance(samples * self.methods[0].cost.gradients, self.times.seconds, self.oracle.totals)

    def _contribute(self, shares: list[Batch]) -> None:
        """Send what all workers contribute before their local steps."""
        combined: Message | None = None
        for rank, batch in enumerate(shares):
            method = method_of(self.methods, rank)
            message = method.contribute(batch)
            if message is not None:
                check_message(method, "contribution", message, self.layout, method.w.dtype)
                combined = self._combine(combined, rank, message)
        if combined is not None:
            self._send(combined)

    def _begin(self, steps: list[Step]) -> None:
        try:
            self.steps.begin(self.step, steps)
        except NotShareable as error:
            # Nothing of this step is computed yet, and this process has the state that the last one left.
            if self.compute is None:
                raise
            self.compute.give_up(error)
            self.steps.close()
            self.steps = self._local_steps()
            self.steps.begin(self.step, steps)

    def _combine(self, combined: Message | None, rank: int, message: Message) -> Message:
        """Take one worker's contribution, in the order of the ranks; it may be borrowed, so it is copied."""
        if self.methods[0].combine != "mean":
            if combined is None:
                combined = self._stack(message)
            for name, tensor in message.items():
                combined[name][rank].copy_(tensor)
            return combined
        if combined is None:
            # A single worker's contribution that is applied at once is handed on as it is.
            alone = self.workers == 1 and not self.methods[0].delay and not self.methods[0].early
            return message if alone else {name: tensor.clone() for name, tensor in message.items()}
        for name, tensor in message.items():
            combined[name].add_(tensor)
        return combined

    def _stack(self, message: Message) -> Message:
        """Return room for all workers' contributions, the same each time unless an earlier one still travels."""
        # Without a delay it was applied in the step before, and nobody needs it any more.
        if self._stacks and not self.methods[0].delay:
            return self._stacks
        self._stacks = {name: tensor.new_empty(self.workers, tensor.numel()) for name, tensor in message.items()}
        return self._stacks

    def _send(self, combined: Message) -> None:
        # The sum first, then one division, as on processes. A single worker's contribution may be its own memory
        # (`_combine`), and there is nothing to divide.
        if self.workers > 1 and self.methods[0].combine == "mean":
            for tensor in combined.values():
                tensor.div_(self.workers)
        self.count_bytes(self.times.combination_bytes)
        begin, arrival = self.times.send(self.travelling[-1].arrival if self.travelling else 0.0)
        self.travelling.append(TimedCombination(self.step + self.methods[0].delay, begin, arrival, combined))

    def _receive(self, travelling: TimedCombination, step: Step) -> None:
        self.times.receive(travelling.begin, travelling.arrival)
        for rank, method in enumerate(self.methods):
            # Workers that hold the same weights must draw the same: one number for all of them.
            seed_generators(self.oracle.device, self.batches.seed, "apply", self.step, 0 if method.replicated else rank)
            # With this step's rate, not that of the step that sent it: the update is made now.
            method.apply(self._combined_of(rank, travelling.combined), step)
        self.steps.applied()

    def _combined_of(self, rank: int, combined: Message) -> Message:
        """Return what a worker applies: the combination of all workers, or that of its own group."""
        if self.mixing is None:
            return combined
        group = self.mixing.groups[rank]
        return {name: self.mixing.mixed(rank, [rows[other] for other in group]) for name, rows in combined.items()}

    def columns(self) -> dict[str, float]:
        """Return, for workers with weights of their own, how far they are apart and what their communication took."""
        # One vector of weights: nothing can disagree.
        if len(self.methods) == 1:
            return {}
        return disagreement(self._distances()[:, 0]) | self.times.communication.columns()

    def disagreements(self) -> Tensor:
        """Return the workers' mean distance from the mean of their weights, layer by layer (layers,)."""
        return self._distances()[:, 1:].mean(0)

    def _distances(self) -> Tensor:
        # Of the workers' own weights: a method's solution may be a vector that all of them share.
        mean, layers = _mean([method.w for method in self.methods]), self.oracle.replica.layers
        return torch.stack([distances(method.w, mean, layers) for method in self.methods])

    def weights(self) -> Tensor:
        """Return the flat weights of the solution: the workers' mean."""
        if len(self.methods) == 1:
            return self.methods[0].solution()
        return _mean([method.solution() for method in self.methods])

    def running_statistics(self) -> Tensor:
        """Return the workers' mean running batch-norm statistics (k,)."""
        return self.statistics.mean(0)

    def method_states(self) -> list[Message]:
        """Return the method's state of every worker, or of one where all are the same."""
        return [method.state() for method in self.methods]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "methods": [method.state() for method in self.methods],
            "statistics": self.statistics,
            "totals": self.oracle.totals,
            "now": self.times.now.tolist(),
            "step": self.step,
            # With what was combined: it was summed from weights that have moved on since.
            "travelling": [
                [item.due, _plain(item.begin), _plain(item.arrival), item.combined] for item in self.travelling
            ],
            "communication": self.times.communication.state_dict(),
            "activity": self.timeline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        for method, saved in zip(self.methods, state["methods"], strict=True):
            method.load_state(saved)
        self.statistics.copy_(state["statistics"])
        self.oracle.totals.copy_(state["totals"])
        self.times.now = np.array(state["now"])
        self.step = state["step"]
        # Checkpoints are loaded to CPU memory; what travels is not copied into tensors of its own, so it is moved here.
        device = self.statistics.device
        self.travelling = deque(
            TimedCombination(
                due, _seconds(begin), _seconds(arrival), {name: tensor.to(device) for name, tensor in combined.items()}
            )
            for due, begin, arrival, combined in state["travelling"]
        )
        self.times.communication.load_state_dict(state["communication"])
        self.timeline.load_state_dict(state["activity"])


def _plain(seconds: Seconds) -> float | list[float]:
    """Return seconds as a checkpoint has them."""
    return seconds.tolist() if isinstance(seconds, np.ndarray) else seconds


def _seconds(plain: float | list[float]) -> Seconds:
    """Return what `_plain` made a checkpoint's."""
    return np.array(plain) if isinstance(plain, list) else plain


def _mean(vectors: Sequence[Tensor]) -> Tensor:
    """Return the workers' mean, added up in the order of the ranks: the same bits whenever it is asked for."""
    mean = vectors[0].clone()
    for vector in vectors[1:]:
        mean.add_(vector)
    return mean.div_(len(vectors))
