"""What a simulated and a real parameter server do alike: their state, pushes, pulls, barriers' ends and lost workers.

Who computes, when a message arrives and what a second is, differs between the two. What the server makes of a message
must not: a run on processes that is replayed in simulation ends with the same bits, so both take these steps from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from algorithms.base import Batch, Message, ParameterServer, Step, message_bytes, shard_range
from runner.config.errors import InputError
from runner.gradients.randomness import seed_generators
from runner.gradients.replica import running_average
from runner.loop.barrier import next_barrier
from runner.loop.batches import Batches
from runner.loop.drift import Drift
from runner.loop.executor import Executor
from runner.loop.leases import Leases
from runner.loop.messages import check_message
from runner.loop.train_control import TrainControl
from runner.run_folder import columns
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Timeline


class Push(NamedTuple):
    """A push that the method has taken in, and that is still to be counted.

    Attributes:
        worker: whose it is.
        samples: gradients that it cost, in samples.
        staleness: updates of the weights between its pull and the push.
        applied: whether it updated the weights.
    """

    worker: int
    samples: float
    staleness: int
    applied: bool


class ServerBase(Executor):
    """The state of a run with a parameter server, and the steps that change it.

    Args:
        server: the method's server half; started here.
        weights: what it starts from, and owns from now on.
        workers: number of workers M.
        statistics: the initial batch-norm statistics (k,), owned too.
        totals: sums of losses, errors and samples (3,), float64, of the pushes since the last evaluation.
        batches: the run's batches, leased one by one.
        control: counts, evaluation, checkpoints.
        timeline: what each worker did when.
        recorder: writes down the order of messages; None if nobody asked for it.
        compiled: fuse the server's update rule.
        measured: what `Drift` measures of the updates.

    Attributes:
        version: by worker, the number of pushes when it pulled last.
        applied: pushes that updated the weights, so far.
        applied_at_pull: by worker, how many these were when it pulled last.
        withheld: workers that the method lets wait for a batch, and the second of the run since which each does.
        stopping: workers that were told to drop what they compute, and have not pulled anew yet.
        stopped: how often a worker dropped what it computed.
        withheld_seconds: by worker, how long it waited so for the batch that it has or had last.
        pull_bytes: of what a worker pulls; `push_bytes` of what it pushes, `barrier_bytes` of its part of a barrier.
        workers_lost: number of workers that died or got stuck.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        weights: Tensor,
        workers: int,
        statistics: Tensor,
        totals: Tensor,
        batches: Batches,
        control: TrainControl,
        timeline: Timeline,
        recorder: Recorder | None,
        compiled: bool,
        measured: Sequence[str] = (),
    ) -> None:
        self.server = server
        self.statistics = statistics
        self.totals = totals
        self.batches = batches
        self.control = control
        self.timeline = timeline
        self.recorder = recorder
        self.version = [0] * workers
        self.applied = 0
        self.applied_at_pull = [0] * workers
        self.withheld: dict[int, float] = {}
        self.withheld_seconds = [0.0] * workers
        self.stopping = set[int]()
        self.stopped = 0
        self.workers_lost = 0
        self._device, self.dtype = weights.device, weights.dtype
        self.resumed = False
        server.start(weights, workers, compiled)
        self.layout = server.layout(weights.numel())
        self.drift = Drift(measured, self.layout, weights, workers) if measured else None
        self.rounds = server.rounds(weights.numel())
        self.restoring = server.restoring(weights.numel())
        # Of the layout alone: headers, batch-norm statistics and what `mirror` keeps up to date are not the method's.
        self.pull_bytes, self.push_bytes = message_bytes(self.layout.pull), message_bytes(self.layout.push)
        # Of a barrier, for each worker and shard: whoever answers for a lost worker's shard sends one answer more.
        self.barrier_bytes = sum(message_bytes(part.broadcast) + message_bytes(part.answer) for part in self.rounds)
        self.leases = Leases(batches)
        # A method may begin with a barrier, before its first update.
        self.leases.quota = next_barrier(server, -1)

    def step(self, **known: int) -> Step:
        """Return the schedule's values for the next update, with what else is known of it."""
        rate = self.control.rate()
        return Step(lr=rate.lr, decay=rate.decay, **known)

    def _seed(self, call: str, *which: int) -> None:
        """Seed what the method draws in a call, so that it draws the same in simulation and on processes."""
        seed_generators(self._device, self.batches.seed, call, self.control.updates, *which)

    def sent(self, worker: int) -> Message | None:
        """Return what `worker` pulled last, if the method keeps it."""
        return self.server.sent(worker)

    def push(self, worker: int, message: Message, statistics: Tensor | None, batches: Sequence[Batch]) -> Push:
        """Let the method take in a worker's message.

        Args:
            worker: whose it is.
            message: what its half made of the batches, on the device of the weights.
            statistics: batch-norm statistics of the batches (k,), None if the network has none.
            batches: of the worker's steps since its pull.
        """
        # Not in pushes: a method that ignores stale ones would find every worker stale for ever once it ignores some.
        staleness = self.applied - self.applied_at_pull[worker]
        self._seed("push")
        self.count_bytes(self.push_bytes)
        if self.drift is not None:
            self.drift.before(worker, self.server.weights_of(worker), self.sent(worker))
        # The method first, then batch norm and the count: the rate and the staleness are those before this update.
        applied = self.server.push(worker, message, self.step(staleness=staleness)) is not False
        self.applied += applied
        if self.drift is not None:
            self.drift.after(self.server.weights_of(worker), message)
        # In the order of arrival, like the updates: the average depends on the order.
        if statistics is not None:
            running_average(self.statistics, statistics, len(batches))
        samples = sum(len(batch.ids) for batch in batches)
        # Counted later, by `count`: on processes the worker's sums of losses come between, and the count looks at them.
        return Push(worker, samples * self.server.evaluations(self.control.updates), staleness, applied)

    def count(self, push: Push, now: float) -> None:
        """Count a push that was taken in by second `now` of the run.

        Raises:
            Stop: the run diverged or was asked to stop.
        """
        self.timeline.staleness(push.worker, push.staleness)
        self.control.advance(push.samples, now, self.totals, push.staleness)

    def recalled(self) -> list[int]:
        """Return the workers that the method, after an update, wants to drop what they compute; each is told once."""
        if not self.server.stops:
            return []
        computing = [worker for worker in self.leases.held if worker not in self.stopping]
        staleness = {worker: self.applied - self.applied_at_pull[worker] for worker in computing}
        # Whom the method names besides these has nothing to drop. In the order of their numbers, as in a replay.
        told = sorted(staleness.keys() & set(self.server.recalled(staleness)))
        self.stopping.update(told)
        return told

    def admitted(self, now: float, *asking: int) -> Iterator[int]:
        """Yield the workers to be answered at second `now`: of those that ask and those that were let wait.

        Whoever takes them answers each before it takes the next, on which the method may decide by the answer.
        """
        self.withheld |= dict.fromkeys(asking, now)
        # In the order of their numbers, as after a barrier: batches go to the same workers in a replay.
        for worker in sorted(self.withheld):
            if self.server.admits(worker):
                since = self.withheld.pop(worker)
                self.withheld_seconds[worker] = now - since
                if now > since:
                    self.timeline.span(worker, "wait", since, now)
                yield worker

    def check_admission(self) -> None:
        """Refuse to wait for a message if no worker owes one.

        Raises:
            InputError: the method lets all workers wait for each other.
        """
        if self.withheld and not self.leases.held:
            waiting = ", ".join(map(str, sorted(self.withheld)))
            what = f"worker(s) {waiting} wait for others, and none of these computes"
            raise InputError(f"{type(self.server).__name__}, admits: {what}; allowed: True for one of them")

    def pull(self, worker: int) -> Message:
        """Return what a worker gets to compute its next batch with; it may alias live state."""
        # What a method sends may depend on the rate, so it is told the rate first.
        self.server.announce(self.step())
        self._seed("pull", worker)
        self.count_bytes(self.pull_bytes)
        # Before the next update: the staleness of the coming push is counted from here. A trace counts pushes, so that
        # it can be replayed with a method that ignores others of them.
        self.version[worker] = self.control.updates
        self.stopping.discard(worker)
        self.applied_at_pull[worker] = self.applied
        message = check_message(self.server, "pull", self.server.pull(worker), self.layout.pull, self.dtype)
        if self.drift is not None:
            self.drift.pulled(worker, message, self.sent(worker))
        return message

    def broadcast(self, number: int) -> Message:
        """Return what every worker gets in round `number` of a barrier; it may alias live state."""
        what = f"broadcast of round {number}"
        return check_message(
            self.server, what, self.server.broadcast(number), self.rounds[number].broadcast, self.dtype
        )

    def shard_state(self, shard: int) -> Message:
        """Return what a worker that takes over a shard of the training set gets."""
        piece = shard_range(self.batches.samples, len(self.version), shard)
        return check_message(
            self.server, "shard_state", self.server.shard_state(piece), self.layout.shard_state, self.dtype
        )

    def restored(self, worker: int) -> Message:
        """Return what a worker's half has to know when a run goes on; it may alias live state."""
        return check_message(self.server, "restore", self.server.restore(worker), self.restoring, self.dtype)

    def end_barrier(self, now: float) -> None:
        """Count a barrier that is over at second `now`, and let batches be handed out up to the next one."""
        updates = self.control.updates
        self.count_bytes(len(self.version) * self.barrier_bytes)
        if self.recorder is not None:
            self.recorder.barrier(version=updates, time=now)
        # Counted before batches are handed out again: the rate of the next pulls follows from it.
        self.control.spend(self.batches.samples * self.server.barrier_cost.gradients, now)
        # The time of the barrier is told already, of all workers.
        self.withheld = dict.fromkeys(self.withheld, now)
        # From here on batches may be leased again; the executor then answers the workers that wait.
        self.leases.quota = next_barrier(self.server, updates)

    def count_lost(self, worker: int, now: float) -> None:
        """Count a worker that was lost at second `now`."""
        self.workers_lost += 1
        self.withheld.pop(worker, None)
        self.stopping.discard(worker)
        # Before anything else is handed on: the next pull may be of a sum that this worker had a share in.
        self.server.lost(worker)
        if self.recorder is not None:
            # At this place between two pushes: a replay drops the worker at the same one.
            self.recorder.lost(worker, version=self.control.updates, time=now)

    def weights(self) -> Tensor:
        """Return the flat weights of the solution, where the server keeps them."""
        return self.server.solution()

    def running_statistics(self) -> Tensor:
        """Return the flat running batch-norm statistics that belong to the solution."""
        return self.statistics

    def columns(self) -> dict[str, float]:
        """Return the updates, without pushes that were ignored or only collected, the stops, and what `drift` says."""
        stops = {columns.STOPPED: self.stopped} if self.server.stops else {}
        return {columns.UPDATES: self.applied, **stops} | ({} if self.drift is None else self.drift.columns())

    def method_states(self) -> list[Message]:
        """Return the method's state of the server."""
        return [self.server.state()]

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the run depends on, in simulation and on processes."""
        return {
            "method": self.server.state(),
            "statistics": self.statistics,
            "totals": self.totals,
            "leases": self.leases.state_dict(),
            "workers_lost": self.workers_lost,
            "applied": self.applied,
            "stopped": self.stopped,
            "trace": None if self.recorder is None else self.recorder.state_dict(),
            "activity": self.timeline.state_dict(),
            "drift": None if self.drift is None else self.drift.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        # The method's state alone is restored here; the worker halves are made of it, by each executor in its own way.
        self.server.load_state(state["method"])
        self.statistics.copy_(state["statistics"])
        # Copied into the tensors that others hold too, the oracle above all; a new one would be filled by nobody.
        self.totals.copy_(state["totals"])
        self.leases.load_state_dict(state["leases"])
        self.workers_lost = state["workers_lost"]
        # Older checkpoints do not tell: then every push was an update.
        self.applied = state.get("applied", self.control.updates)
        self.stopped = state.get("stopped", 0)
        # A run may go on with a recorder where it had none before, and the other way round.
        if self.recorder is not None and state["trace"] is not None:
            self.recorder.load_state_dict(state["trace"])
        self.timeline.load_state_dict(state["activity"])
        # A run may go on with other diagnostics than it had.
        if self.drift is not None and state.get("drift"):
            self.drift.load_state_dict(state["drift"])
        self.resumed = True
