"""One worker of a collective method on a process of its own.

Contributions are packed into one vector and combined by one all-reduce or all-gather, or exchanged with neighbours
alone. For methods with a `delay` it travels while the next local steps run. Two more elements of that vector let all
ranks agree to stop (`stop_flags`): a signal arrived, or a loss is not finite. At evaluations rank 0 gathers what it
needs and the others wait for it, so no clock runs meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from algorithms.base import Collective, Message, Step, message_bytes
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.gradients.replica import running_average
from runner.loop.batches import Batches, relative_size
from runner.loop.clock import Clock
from runner.loop.communication import Communication, disagreement, distances
from runner.loop.messages import check_averaged, check_message
from runner.loop.mixing import Mixing
from runner.loop.train_control import TrainControl
from runner.processes.async_collective import AsyncCollective, NeighbourExchange, PendingCollective
from runner.processes.packing import Packing
from runner.processes.rendezvous import Rendezvous
from runner.processes.stop_flags import FLAGS, SpreadFlags, StopFlags
from runner.processes.synchronous import SynchronousProcess
from runner.run_folder.timeline import Timeline


class DueCollective(NamedTuple):
    """A combination on its way, to be applied after local step `due`."""

    due: int
    pending: PendingCollective


class ProcessCollective(SynchronousProcess):
    """Run one rank of a collective method; rank 0 owns the run folder.

    Args:
        method: this rank's instance; started here, on the replica's weights.
        rendezvous: rank, number of ranks and store.
        oracle: gradients.
        batches: the run's batches of M times the batch size, cut into shares.
        control: counts, evaluation, checkpoints; on ranks other than 0 it only counts.
        timeline: what each worker did when, kept on rank 0.
        clock: the delays of computing and network that this run acts with real sleeps.
        compiled: fuse the update rule.
    """

    def __init__(
        self,
        method: Collective,
        *,
        rendezvous: Rendezvous,
        oracle: NetworkOracle,
        batches: Batches,
        control: TrainControl,
        timeline: Timeline,
        clock: Clock,
        compiled: bool = False,
    ) -> None:
        super().__init__(rendezvous, oracle=oracle, batches=batches, control=control, timeline=timeline)
        self.method = method
        replica = oracle.replica
        # On the replica's own memory, not a copy: the weights need not be copied there for each gradient. An evaluation
        # writes to that memory too, hence `_evaluate_gathered`.
        method.start(replica.weights, rendezvous.rank, rendezvous.world, compiled)
        self.statistics = replica.initial_statistics()
        self.layout = method.layout(replica.weights.numel())
        self.travelling: deque[DueCollective] = deque()
        self.communication = Communication()
        self.clock = clock
        check_averaged(method, self.layout)
        self.packing = Packing(self.layout, FLAGS)
        self.mixing = Mixing(method, rendezvous.world) if method.combine == "mix" else None
        # Computing hides combinations that travel beside it.
        self.background = bool(method.delay) or method.early
        self.combiner, self.flags, self.combination_bytes = self._communicating(message_bytes(self.layout))
        # This is what rank 0 gathered for an evaluation; ranks other than 0 never look at it.
        self._gathered: dict[str, Any] = {
            "weights": method.solution(),
            "statistics": [self.statistics],
            "methods": [],
            "distances": None,
        }

    def _communicating(self, nbytes: int) -> tuple[AsyncCollective, StopFlags, int]:
        """Return what combines contributions of so many bytes and agrees to stop, and the bytes that all ranks send."""
        method, clock, device = self.method, self.clock, self.oracle.device
        # The bytes are counted by this rank for all: every rank takes part in every combination.
        if method.combine == "mix":
            assert self.mixing is not None
            group, seconds = self.mixing.groups[self.rank], self.mixing.seconds(clock, nbytes)[self.rank]
            exchange = NeighbourExchange(group, self.rank, background=self.background, extra_seconds=seconds)
            # What a rank hears while a combination travels, it cannot send before the next one.
            lag = self.mixing.hops * (1 + -(-method.delay // method.period))
            return exchange, SpreadFlags(device, lag), self.mixing.nbytes(clock, nbytes)
        seconds = clock.combining_seconds(method.combine, nbytes, self.world)
        collective = AsyncCollective(method.combine, self.world, background=self.background, extra_seconds=seconds)
        return collective, StopFlags(device), clock.combining_bytes(method.combine, nbytes, self.world)

    def _take_step(self) -> str | None:
        shares = self.batches.shares(self.step, self.world)
        batch = shares[self.rank]
        # This batch and the next: the next is decoded on the CPU while this one is computed on.
        if self.oracle.streams and self.step + 1 < len(self.batches):
            self.oracle.expect(batch)
            self.oracle.expect(self.batches.shares(self.step + 1, self.world)[self.rank])
        samples = sum(len(other.ids) for other in shares)
        rate = self.control.rate()
        step = Step(lr=rate.lr, decay=rate.decay)
        relative = relative_size(len(batch.ids), samples, self.world)
        begin = self.control.wall()
        if self.method.early:
            # Before the local step, which it travels beside.
            self._send(self.method.contribute(batch))
        seed_generators(self.oracle.device, self.batches.seed, "local", self.step, self.rank)
        message = self.method.local(self.oracle, batch, step._replace(relative_size=relative))
        if len(batch.ids):
            running_average(self.statistics, self.oracle.replica.statistics)
        computed = self.control.wall()
        # A batch is that of all ranks together, so an equal share of a full one is a load of 1.
        load = len(batch.ids) * self.world / self.batches.size
        time.sleep(self.clock.sleep_seconds(self.rank, self.step, computed - begin, load, self.method.cost.gradients))
        computed = self.control.wall()
        self.timeline.span(self.rank, "compute", begin, computed)
        self._send(message)
        stop = None
        # After sending, so that without a delay this step's own combination is the one that is due.
        while self.travelling and self.travelling[0].due == self.step:
            stop = self._receive(self.travelling.popleft(), step)
        now = self.control.wall()
        self.timeline.span(self.rank, "transfer", computed, now)
        # After the first step no sums are handed over: this rank's loss is not to stop it alone. The flags stop all
        # ranks in the same step.
        first = self.oracle.totals if self.control.updates == 0 else None
        self.control.advance(samples * self.method.cost.gradients, now, first)
        return stop

    def _send(self, message: Message | None) -> None:
        if message is None:
            return
        check_message(self.method, "contribution", message, self.layout)
        vector = self.packing.pack(message, self.flags.sent(self.control.stopping(), self.oracle.totals[0]))
        self.count_bytes(self.combination_bytes)
        # Numbered by steps: all ranks apply a combination after the same step, however late it arrives.
        self.travelling.append(DueCollective(self.step + self.method.delay, self.combiner.start(vector)))

    def _receive(self, travelling: DueCollective, step: Step) -> str | None:
        pending = travelling.pending
        begin = time.perf_counter()
        vectors = pending.wait()
        seconds = pending.seconds()
        waited = time.perf_counter() - begin
        # What this rank did not wait for, it hid by computing. Without a delay it waits for all of it.
        self.communication.add(seconds, max(0.0, seconds - waited) if self.background else 0.0)
        combined, flags = self.packing.unpack(vectors)
        if self.method.combine == "mean":
            combined = {name: piece[0].div_(self.world) for name, piece in combined.items()}
        elif self.mixing is not None:
            combined = {name: self.mixing.mixed(self.rank, list(rows)) for name, rows in combined.items()}
        # Workers that hold the same weights must draw the same: one number for all of them.
        seed_generators(
            self.oracle.device, self.batches.seed, "apply", self.step, 0 if self.method.replicated else self.rank
        )
        self.method.apply(combined, step)
        return self.flags.verdict(flags)

    def _gather(self) -> Tensor:
        # All ranks must enter these collectives, and in this order, so each rank gathers although only rank 0 needs it.
        totals = self._sum(self.oracle.totals.clone())
        weights = self._weights()
        own_totals = torch.tensor(self.timeline.totals(self.rank), dtype=torch.float64)
        for rank, row in enumerate(self._rows(own_totals.to(self.oracle.device))):
            self.timeline.merge(rank, row.tolist())
        self._gathered = {
            "weights": weights,
            "statistics": self._rows(self.statistics),
            "methods": self._states(),
            # Waited for, not taken out: the checkpoint holds what arrived, and the run still applies it when it is due.
            "travelling": [[t.due, self._arrived(t.pending)] for t in self.travelling],
            "distances": self._distances(),
        }
        return totals

    def _arrived(self, pending: PendingCollective) -> Tensor:
        """Wait for a combination, and return it as a checkpoint has it: what every rank may need of it."""
        vectors = pending.wait()
        if self.mixing is None:
            return vectors
        # No two ranks have the same neighbours: each adds what it sent itself, of which all can take theirs.
        return torch.stack(self._rows(vectors[self.mixing.groups[self.rank].index(self.rank)]))

    def _evaluate_gathered(self, finished: bool, stop: bool) -> None:
        # The evaluation puts the mean into the replica, where this rank's own weights live.
        own = None if self.method.replicated else self.method.w.clone()
        super()._evaluate_gathered(finished, stop)
        # Only rank 0 evaluates; the others' weights were never touched.
        if own is not None:
            self.method.w.copy_(own)

    def _rows(self, vector: Tensor) -> list[Tensor]:
        """Return every rank's vector."""
        return list(AsyncCollective("gather", self.world).start(vector.contiguous()).wait())

    def _sum(self, vector: Tensor) -> Tensor:
        """Return the sum of all ranks' vectors; it overwrites this rank's vector if the group can sum it there."""
        return AsyncCollective("mean", self.world).start(vector).wait()[0]

    def _distances(self) -> Tensor | None:
        # All ranks decide alike, and skip a collective that all would have to enter.
        if self.method.replicated or self.world == 1:
            return None
        # Of the workers' own weights: a method's solution may be a vector that all of them share.
        mean = self._sum(self.method.w.clone()).div_(self.world)
        return torch.stack(self._rows(distances(self.method.w, mean, self.oracle.replica.layers)))

    def disagreements(self) -> Tensor:
        """Return the ranks' mean distance from the mean of their weights as gathered last, (layers,)."""
        return self._gathered["distances"][:, 1:].mean(0)

    def columns(self) -> dict[str, float]:
        """Return, as gathered at the last evaluation, how far the ranks' weights are apart, and rank 0's communication.

        A combination's seconds are those from when rank 0 sends it to when it arrives there, so waiting for slower
        ranks is part of them.
        """
        found = self._gathered["distances"]
        return {} if found is None else disagreement(found[:, 0]) | self.communication.columns()

    def _weights(self) -> Tensor:
        if self.method.replicated:
            return self.method.solution()
        if self.mixing is not None:
            # In the order of the ranks, as in a simulation: a rank's own weights have that one's bits, so has the mean.
            total, *others = self._rows(self.method.solution())
            for other in others:
                total.add_(other)
            return total.div_(self.world)
        return self._sum(self.method.solution().clone()).div_(self.world)

    def _states(self) -> list[Message]:
        own = self.method.state()
        if self.method.replicated:
            return [own]
        # Field by field in the same order on every rank, as each is a collective.
        columns = {name: self._rows(tensor) for name, tensor in own.items()}
        return [{name: rows[rank] for name, rows in columns.items()} for rank in range(self.world)]

    def weights(self) -> Tensor:
        """Return the flat weights of the solution as gathered at the last evaluation: the workers' mean."""
        return self._gathered["weights"]

    def running_statistics(self) -> Tensor:
        """Return the workers' mean running batch-norm statistics as gathered at the last evaluation."""
        return torch.stack(self._gathered["statistics"]).mean(0)

    def method_states(self) -> list[Message]:
        """Return the method's state of all ranks, as gathered at the last evaluation; empty before the first one."""
        return self._gathered["methods"]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, of all ranks, as gathered at the last evaluation."""
        return {
            "methods": self._gathered["methods"],
            "statistics": self._gathered["statistics"],
            "travelling": self._gathered["travelling"],
            "totals": self.oracle.totals,
            "communication": self.communication.state_dict(),
            "step": self.step,
            "activity": self.timeline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore this rank's part of what `state_dict` returned on rank 0."""
        rank = self.rank
        self.method.load_state(state["methods"][0 if self.method.replicated else rank])
        self.statistics.copy_(state["statistics"][rank])
        # The sums are those of all ranks: restored on each of them, the next gathering would count them M times.
        if rank == 0:
            self.oracle.totals.copy_(state["totals"])
        self.timeline.load_state_dict(state["activity"])
        self.step = state["step"]
        device = self.oracle.device
        self.communication.load_state_dict(state["communication"])
        # None for the transfer: these have arrived, and every rank holds the same ones, or takes those of its group.
        mine = slice(None) if self.mixing is None else self.mixing.groups[rank]
        self.travelling = deque(
            DueCollective(due, PendingCollective(vectors.to(device)[mine], None))
            for due, vectors in state["travelling"]
        )
