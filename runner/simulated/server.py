"""A parameter server and its workers in one process.

A source of events says which message the server handles next, and when: a virtual clock, or the trace of a
recorded run (`simulated.events`). Since a gradient depends only on what was pulled and on the leased batch, it is
evaluated when its push is handled: no gradient is ever in flight, and a server that keeps backups needs no further copy
of the weights. For the same reason other processes may compute what is in flight side by side (`simulated.halves` and
`simulated.pooled_halves`): the pushes are handled in the same order, with the same bits.

A barrier begins when every push before it is in. Each worker's half receives the broadcasts; shards are answered for
one after the other, in the order in which their answers are added up.

A push and the pull that follows it are one message and its answer, as in a request with a reply; the papers' algorithms
pull right after they push too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from algorithms.base import Batch, Field, Message, ParameterServer, field_of, shard_range
from runner.config.errors import InputError
from runner.gradients.oracle import NetworkOracle
from runner.loop.barrier import sum_messages
from runner.loop.batches import Batches
from runner.loop.server_base import ServerBase
from runner.loop.train_control import TrainControl
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Timeline
from runner.run_folder.trace import BARRIER, LOST, RESUMED, STOPPED, Record
from runner.simulated.arena import NotShareable
from runner.simulated.compute_pool import PoolOptions
from runner.simulated.events import Event, Events
from runner.simulated.halves import Halves, LocalHalves
from runner.simulated.pooled_halves import PooledHalves, serves_all


class SimulatedServer(ServerBase):
    """Run a parameter-server method on simulated workers.

    Args:
        server: the method's server half; started here, on a copy of the replica's weights.
        workers: number of workers M.
        oracle: gradients.
        batches: the run's batches, leased one by one.
        events: says which message is handled next.
        control: counts, evaluation, checkpoints.
        timeline: what each worker did when.
        recorder: writes down the order of messages; None if nobody asked for it.
        compiled: fuse the server's update rule.
        compute: other processes that compute; None to compute in this one.
        measured: see `ServerBase`.
    """

    def __init__(
        self,
        server: ParameterServer,
        *,
        workers: int,
        oracle: NetworkOracle,
        batches: Batches,
        events: Events,
        control: TrainControl,
        timeline: Timeline,
        recorder: Recorder | None = None,
        compiled: bool = False,
        compute: PoolOptions | None = None,
        measured: Sequence[str] = (),
    ) -> None:
        replica = oracle.replica
        super().__init__(
            server,
            weights=replica.weights.clone(),
            workers=workers,
            statistics=replica.initial_statistics(),
            totals=oracle.totals,
            batches=batches,
            control=control,
            timeline=timeline,
            recorder=recorder,
            compiled=compiled,
            measured=measured,
        )
        self.oracle = oracle
        self.events = events
        self.workers = workers
        # What each worker pulled last, where the server does not keep it itself.
        self.copies: list[Message] = [
            {} if server.sent(m) else {name: self._zeros(declared) for name, declared in self.layout.pull.items()}
            for m in range(workers)
        ]
        # What each worker's half keeps. A push's part of it is there when the push is handled, whoever computes when.
        self.states: list[Message] = [
            {name: self._zeros(declared) for name, declared in self.layout.state.items()} for _ in range(workers)
        ]
        self.compute = compute
        self.halves: Halves = self._halves()

    def sent(self, worker: int) -> Message:
        """Return what `worker` pulled last."""
        return self.server.sent(worker) or self.copies[worker]

    def _halves(self) -> Halves:
        """Return the workers' halves: in compute processes, or here if there are none or the method allows none."""
        if self.compute is not None:
            shared = {
                "copies": self.copies,
                "states": self.states,
                "totals": self.totals,
                "statistics": self.statistics,
            }
            try:
                return PooledHalves(self.server, self.compute, order=self.events.order, **shared)
            except NotShareable as error:
                self.compute.give_up(error)
        return self._local_halves()

    def _local_halves(self) -> Halves:
        return LocalHalves(
            self.server, workers=self.workers, oracle=self.oracle, batches=self.batches, states=self.states
        )

    def _zeros(self, declared: int | Field) -> Tensor:
        size, dtype = field_of(declared, self.dtype)
        return self.server.w.new_zeros(size, dtype=dtype)

    def run(self) -> None:
        """Run to the end of the batches, or of the events.

        Raises:
            Stop: the run diverged or was asked to stop.
            InputError: the trace that is replayed is not what this run makes of it.
        """
        try:
            self.halves.start()
            self._run()
        finally:
            self.halves.close()

    def _run(self) -> None:
        control = self.control
        control.start()
        if self.recorder is not None:
            self.recorder.begin()
        # A run that goes on has its pulls in the restored events: the workers keep what they were computing.
        if self.resumed:
            for worker in self.leases.held:
                self._begin(worker, self.leases.held_batches(worker))
        else:
            for worker in range(self.workers):
                self._answer(self.events.begin(), worker)
        try:
            while not self._finished:
                # Also if the barrier was cut short: the event that came instead is handled as any other.
                if not (self.leases.at_barrier and self._meet()):
                    self.check_admission()
                    self._handle(self.events.next())
                finished = self._finished
                if control.due(finished):
                    self.halves.proceed()
                    control.evaluate(self.weights(), self.statistics, self.totals, self, finished)
        finally:
            control.pause()
            if self.recorder is not None:
                self.recorder.flush()

    @property
    def _finished(self) -> bool:
        return self.leases.finished or self.events.over

    def _handle(self, event: Event) -> None:
        if event.kind == LOST:
            self._drop(event)
        elif event.kind == STOPPED:
            self._restart(event)
        elif event.kind == RESUMED:
            if self.recorder is not None:
                self.recorder.resumed(version=self.control.updates, time=event.time)
            # The same steps as on processes, in the same order: there every worker is a new process after a stop, which
            # gets its state, its shards and a batch in the order of its number.
            for worker in range(self.workers):
                self.halves.drop(worker)
            self.leases.restart()
            self.withheld.clear()
            self.stopping.clear()
            self._begin_anew()
            self._restore()
            for worker in range(self.workers):
                self._answer(event.time, worker)
        elif event.kind == BARRIER:
            raise InputError(
                f"cluster.trace: a barrier was over after update {event.record.version if event.record else 0}, here "
                "workers are still on their way to it; allowed: the trace of such a run, unchanged"
            )
        else:
            self._handle_push(event)
            self._answer(event.time, event.worker)

    def _meet(self) -> bool:
        """Hold the barrier that all workers have come to, unless something else happens before it is over."""
        server, workers, gone = self.server, self.workers, self.leases.gone
        shards = [self.batches.shard(worker, workers, self.leases.next) for worker in range(workers)]
        cost = server.barrier_cost.gradients
        now = self.events.meet(self.rounds, [len(shard.ids) / self.batches.size for shard in shards], cost)
        if now is None:
            return False
        # A lost worker hears nothing more, as in the recorded run.
        living = [worker for worker in range(workers) if worker not in gone]
        # Whoever answers for a lost worker's shard says the same.
        answering = [living[0] if worker in gone else worker for worker in range(workers)]
        for number, part in enumerate(self.rounds):
            self.halves.receive(living, number, self.broadcast(number))
            if part.answer:
                # In the order of the shards, which is the order of the sum.
                server.collect(number, sum_messages(self.halves.answers(number, shards, answering)))
        self.end_barrier(now)
        for worker in sorted(self.leases.idle):
            self._send_pull(worker, now)
        return True

    def _restore(self) -> None:
        """Give the worker halves the state that they have in a run that goes on."""
        if self.restoring:
            for worker in range(self.workers):
                self.halves.restore(worker, self.restored(worker))

    def _handle_push(self, event: Event) -> None:
        worker, control = event.worker, self.control
        if event.record is not None:
            self._compare(event.record)
        batches = self.leases.done(worker)
        pulled = self.sent(worker)
        message, statistics = self.halves.work(worker, pulled, batches)
        if self.recorder is not None:
            # Before it is counted: a push that makes the loss infinite ends the run there, and is part of the record.
            self.recorder.push(
                worker,
                pulled=self.version[worker],
                version=control.updates,
                batch=batches[0].number,
                steps=len(batches),
                time=event.time,
            )
        push = self.push(worker, message, statistics, batches)
        self.halves.taken(worker)
        self.count(push, event.time)
        if push.applied:
            self._recall(event.time)

    def _recall(self, now: float) -> None:
        """Tell workers to stop, if the method says so; what they would have pushed need not be computed."""
        for worker in self.recalled():
            if self.events.recall(worker, now):
                self.halves.drop(worker)

    def _restart(self, event: Event) -> None:
        """Let a worker that has dropped what it computed pull anew, for the same batch."""
        worker = event.worker
        if event.record is not None:
            self._compare(event.record)
        batches = self.leases.again(worker)
        if self.recorder is not None:
            self.recorder.stopped(
                worker,
                pulled=self.version[worker],
                version=self.control.updates,
                batch=batches[0].number,
                steps=len(batches),
                time=event.time,
            )
        self.halves.drop(worker)
        self.stopped += 1
        self._send_batches(worker, batches, event.time)

    def _answer(self, now: float, *asking: int) -> None:
        """Answer workers that ask for a batch, and those that were let wait, as far as the method admits them."""
        for worker in self.admitted(now, *asking):
            self._send_pull(worker, now)

    def _send_pull(self, worker: int, now: float) -> None:
        batches = self.leases.lease(worker, self.server.steps(worker))
        # Without a batch there is nothing to pull for, and the version must not move.
        if batches:
            self._send_batches(worker, batches, now)

    def _send_batches(self, worker: int, batches: Sequence[Batch], now: float) -> None:
        message = self.pull(worker)
        # A copy: what is pulled may alias the server's live weights, and they change before this worker computes.
        for name, copy in self.copies[worker].items():
            copy.copy_(message[name])
        updates = self.control.updates
        loads = [len(batch.ids) / self.batches.size for batch in batches]
        self.events.pulled(worker, loads, now, self.server.evaluations(updates))
        # Now that the events know when its push comes.
        self._begin(worker, batches)

    def _begin(self, worker: int, batches: Sequence[Batch]) -> None:
        try:
            self.halves.begin(worker, batches, self.leases.drawn_from(worker))
        except NotShareable as error:
            # Only now can it be seen. All that halves work on is here as well, and a half that keeps nothing is
            # replaced by another; what one has kept since its first batch is nowhere else.
            if self.compute is None or not serves_all(self.server.worker(worker)):
                raise
            self.compute.give_up(error)
            self.halves.close()
            self.halves = self._local_halves()

    def _drop(self, event: Event) -> None:
        """Go on without a worker: its batch goes to an idle one, or to whoever pulls next."""
        self.count_lost(event.worker, event.time)
        self.halves.drop(event.worker)
        # It is gone with the process that had it, also if the worker begins anew in a run that goes on.
        for tensor in self.states[event.worker].values():
            tensor.zero_()
        # Before the shards are handed on, as on processes: a lost worker must not get its own.
        waking = self.leases.release(event.worker)
        if inherited := self.leases.reassign_shards(event.worker):
            self._hand_over(*inherited)
        for idle in waking:
            self._send_pull(idle, event.time)
        self._answer(event.time)

    def _hand_over(self, worker: int, shards: list[int]) -> None:
        """Give a worker's half what it needs to know of shards of the training set."""
        for shard in shards:
            piece = shard_range(self.batches.samples, self.workers, shard)
            self.halves.adopt(worker, piece, self.shard_state(shard))

    def _begin_anew(self) -> None:
        """Give every worker a new half that knows what the server knows, where shards of the training set are fixed."""
        for worker, shards in self.leases.shards.items():
            self.halves.renew([worker])
            self._hand_over(worker, shards)

    def _compare(self, record: Record) -> None:
        """Refuse a trace that this run cannot have made: it would not be what it claims to repeat."""
        worker = record.worker
        held = self.leases.held.get(worker, [None])
        # Four numbers decide a push: the weights it was computed at, those it meets, and its samples, of its first
        # batch and others that follow from it. If they agree for every push, the weights agree to the bit on the same
        # machine.
        mine = (self.version[worker], self.control.updates, held[0], len(held))
        recorded = (record.pulled, record.version, record.batch, record.steps)
        if mine != recorded:
            names = "(version pulled, version at push, first batch, batches)"
            push = f"worker {worker}'s push after update {self.control.updates}"
            what = f"{push} was {names} = {recorded}, here it is {mine}"
            raise InputError(f"cluster.trace: {what}; allowed: the trace of such a run, unchanged")

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            **super().state_dict(),
            "copies": self.copies,
            "worker_states": self.states,
            "version": self.version,
            "applied_at_pull": self.applied_at_pull,
            "withheld": dict(self.withheld),
            "stopping": sorted(self.stopping),
            "events": self.events.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `run` then continues."""
        super().load_state_dict(state)
        for copies, saved in zip(self.copies, state["copies"], strict=True):
            for name, copy in copies.items():
                copy.copy_(saved[name])
        for own, saved in zip(self.states, state.get("worker_states", self.states), strict=True):
            for name, tensor in own.items():
                tensor.copy_(saved[name])
        # Only in simulation: on processes all workers pull anew after a resume.
        self.version = list(state["version"])
        self.applied_at_pull = list(state.get("applied_at_pull", state["version"]))
        self.withheld = {int(worker): since for worker, since in state.get("withheld", {}).items()}
        self.stopping = set(state.get("stopping", ()))
        self.events.load_state_dict(state["events"])
        # After the server: what the halves take over is part of its state.
        self._begin_anew()
        self._restore()
