"""One module of a pipeline method on a process of its own.

In each iteration the module takes the features that the one before sends, plays them, sends its own on, goes backward
with the error gradient that it has (of the same iteration where the method is locked, else the one that the module
after sent in the iteration before) and sends one down. A method that cuts batches does so with each micro-batch, in the
order that it says, and messages are those of micro-batches. Every rank has the data set and cuts what it needs of a
batch itself: the first module the inputs, all the targets. Between the modules of a decoupled method nothing but these
messages sets the pace: a module runs ahead of the one after it by one iteration, or micro-batch, at most.

Rank 0 decides to stop, which the features tell the others in the same iteration; a rank that was asked tells rank 0
with its error gradients. At evaluations the error gradients on their way are taken in first, and then rank 0 gathers
the state of all modules. No clock runs meanwhile.
"""

from __future__ import annotations

import io
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from algorithms.base import Batch, Message, Step
from algorithms.pipeline import Features, Pipeline
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.messages import check_module
from runner.loop.pipeline_schedule import (
    FORWARD_SHARE,
    Pass,
    counts_memory,
    extra_share,
    first_features,
    iteration_bytes,
    later_features,
    memory_columns,
    piece_sizes,
    restore_module,
    seed_pass,
)
from runner.loop.stop import Stop
from runner.loop.train_control import CHECK_EVERY, TrainControl, synchronize
from runner.processes.p2p_channel import P2PChannel, Received, gather_bytes
from runner.processes.rendezvous import Rendezvous
from runner.processes.synchronous import SynchronousProcess
from runner.run_folder.summary_keys import INTERRUPTED
from runner.run_folder.timeline import Timeline


class ProcessPipeline(SynchronousProcess):
    """Run one module of a pipeline method; rank 0, the first, owns the run folder.

    Args:
        method: this rank's instance; started here, on its piece of the replica's weights.
        partition: the network in modules.
        rendezvous: rank, number of ranks and store.
        oracle: of the whole network; of its weights only this module's piece is kept up to date.
        batches: the run's batches.
        control: counts, evaluation, checkpoints; on ranks other than 0 it only counts.
        timeline: what each module did when; ranks other than 0 tell rank 0 their totals.
        clock: the delays of computing that this run acts with real sleeps.
    """

    def __init__(
        self,
        method: Pipeline,
        partition: Partition,
        *,
        rendezvous: Rendezvous,
        oracle: NetworkOracle,
        batches: Batches,
        control: TrainControl,
        timeline: Timeline,
        clock: Clock,
    ) -> None:
        super().__init__(rendezvous, oracle=oracle, batches=batches, control=control, timeline=timeline)
        self.method = method
        self.partition = partition
        self.last = self.rank == self.world - 1
        self.clock = clock
        self.stage = partition.stages[self.rank]
        method.setup(self.stage.weights, partition.stage_info(self.rank))
        # `asked` goes down to rank 0 with the error gradients, `stop` comes up from there with the features: so all
        # modules stop in the same iteration.
        self.stop = False
        self.asked = False
        self.below = None if self.rank == 0 else self._channel(self.rank - 1, partition.outputs[self.rank - 1])
        self.above = None if self.last else self._channel(self.rank + 1, partition.outputs[self.rank])
        # A list of one if the error gradient of the next iteration is here already. Decoupled modules begin without
        # one, so their first iteration goes backward with None.
        self.held: list[Tensor | None] | None = [None]
        # This is what rank 0 gathered for an evaluation; ranks other than 0 never look at it.
        self._gathered: dict[str, Any] = {
            "statistics": torch.cat([stage.running for stage in partition.stages]),
            "peaks": [0] * self.world,
        }
        # Of all modules: in the replica itself only this module's piece is kept up to date.
        self._weights = oracle.replica.weights.clone()

    def _channel(self, peer: int, shape: tuple[int, ...]) -> P2PChannel:
        return P2PChannel(peer, shape, self.oracle.device, self.control.wall)

    def _take_step(self) -> str | None:
        rate = self.control.rate()
        step = Step(lr=rate.lr, decay=rate.decay)
        batch = self.batches.batch(self.step)
        self.stage.method = self.method if counts_memory(self.step, self.world) else None
        share = len(batch.ids) / self.batches.size
        load = share * self.partition.work_shares[self.rank]
        # Before the first pass of the iteration, which tells the others.
        self.stop = self.rank == 0 and (self.asked or self.control.stopping())
        self.count_bytes(iteration_bytes(self.partition, len(batch.ids)))
        sizes, made = piece_sizes(len(batch.ids), self.method.micro_batches), {"forward": 0, "backward": 0}
        for call in self.method.pass_order():
            ready = Pass(self.rank, call, made[call])
            made[call] += 1
            part = sizes[ready.piece] / len(batch.ids)
            if call == "forward":
                self._forward(ready, batch, load * part)
            else:
                self._backward(ready, step, load * part, share * part)
        try:
            # `_loss` first, and on all ranks: it broadcasts.
            self.control.advance(len(batch.ids), self.control.wall(), self._loss())
        except Stop:
            # A loss that is not finite stops all ranks in the same step, so rank 0 can still gather the final state.
            self.control.pause()
            self._gather()
            raise
        return INTERRUPTED if self.stop else None

    def _forward(self, ready: Pass, batch: Batch, load: float) -> None:
        # Waits for the module below, so the clock of computing starts after it.
        features = self._features(batch, ready.piece)
        begin = self.control.wall()
        seed_pass(self.oracle, self.batches.seed, self.step, ready)
        outputs = self.method.forward(self.stage, features)
        self._computed(begin, load * FORWARD_SHARE)
        # Before this module waits for its error gradient: the module above needs the features to make one, if the
        # method is locked, and else computes meanwhile.
        if self.above is not None:
            check_module(self.method, self.partition.outputs, "forward", self.rank, outputs)
            self._send(self.above, outputs, self.stop)

    def _backward(self, ready: Pass, step: Step, load: float, share: float) -> None:
        delta = self._delta()
        begin = self.control.wall()
        seed_pass(self.oracle, self.batches.seed, self.step, ready)
        down = self.method.backward(self.stage, delta, step)
        again = FORWARD_SHARE * self.method.replays if not self.last else 0.0
        extra = share * extra_share(self.method, self.partition.operations)
        self._computed(begin, load * (1 - FORWARD_SHARE + again) + extra)
        if self.below is not None:
            check_module(self.method, self.partition.outputs, "backward", self.rank, down)
            self._send(self.below, down, self.asked or self.control.stopping())

    def _features(self, batch: Batch, piece: int) -> Features:
        """Return what goes into the module, and learn whether this iteration is the last before a stop."""
        pieces = self.method.micro_batches
        if self.below is None:
            return first_features(self.oracle, batch, self.step, piece, pieces)
        received = self._receive(self.below)
        self.stop = received.flag
        inputs = received.values
        if inputs is None:
            # A micro-batch without samples.
            inputs = torch.empty(0, *self.partition.outputs[self.rank - 1], device=self.oracle.device)
        return later_features(self.oracle, batch, self.step, inputs, piece, pieces)

    def _delta(self) -> Tensor | None:
        """Return the error gradient to go backward with."""
        if self.above is None:
            return None
        if self.held is not None and not self.method.locked:
            # In the iteration after a gathering: the message was taken in there.
            (delta,) = self.held
            self.held = None
            return delta
        return self._from_above(self.above)

    def _from_above(self, above: P2PChannel) -> Tensor | None:
        received = self._receive(above)
        self.asked = self.asked or received.flag
        return received.values

    def _receive(self, channel: P2PChannel) -> Received:
        begin = self.control.wall()
        received = channel.receive()
        self.timeline.span(self.rank, "wait", begin, received.sent)
        self.timeline.span(self.rank, "transfer", received.sent, self.control.wall())
        return received

    def _send(self, channel: P2PChannel, values: Tensor | None, flag: bool) -> None:
        begin = self.control.wall()
        channel.send(values, flag)
        self.timeline.span(self.rank, "transfer", begin, self.control.wall())

    def _computed(self, begin: float, load: float) -> None:
        synchronize(self.oracle.totals)
        took = self.control.wall() - begin
        time.sleep(self.clock.sleep_seconds(self.rank, self.step, took, load))
        self.timeline.span(self.rank, "compute", begin, self.control.wall())

    def _loss(self) -> Tensor | None:
        """Return the last module's sums on all ranks if it is time to look at the loss, else None.

        The first update's is kept, and every so many updates it must be finite.
        """
        # All ranks have counted as many updates, so all of them enter the broadcast or none. `advance` counts this one
        # before it looks, hence + 1.
        updates = self.control.updates
        if self.oracle.device.type != "cpu" or (updates and (updates + 1) % CHECK_EVERY):
            return None
        totals = self.oracle.totals.clone()
        dist.broadcast(totals, self.world - 1)
        return totals

    def _gather(self) -> Tensor | None:
        # Messages on their way are received first: the checkpoint holds them, and the gathering needs empty channels.
        if self.above is not None and not self.method.locked and self.held is None:
            self.held = [self._from_above(self.above)]
        # Nothing of the training may be on its way: the gathering uses the same group, whose messages come in order.
        for channel in (self.below, self.above):
            if channel is not None:
                channel.finish()
        file = io.BytesIO()
        torch.save(self._own(), file)
        states = [
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            for content in gather_bytes(file.getvalue(), self.world)
        ]
        if self.rank:
            return None
        for rank, state in enumerate(states):
            self.timeline.merge(rank, state["activity"])
        self._take(
            {
                "methods": [state["method"] for state in states],
                "kept": [state["kept"] for state in states],
                "statistics": torch.cat([state["statistics"] for state in states]),
                # Losses are computed in the last module alone.
                "totals": states[-1]["totals"],
                # As the simulation writes it: entry k is what module k sent down, which module k − 1 holds.
                "travelling": [[], *(state["held"] for state in states[:-1])],
                "peaks": [state["peak"] for state in states],
            }
        )
        return self._gathered["totals"]

    def _take(self, gathered: dict[str, Any]) -> None:
        """Keep on rank 0 what was gathered, and put the modules' weights into one vector."""
        self._gathered = gathered
        for method, (low, high, *_) in zip(gathered["methods"], self.partition.pieces, strict=True):
            self._weights[low:high].copy_(method["w"])

    def _own(self) -> dict[str, Any]:
        """Return copies of this module's state, because a view would be saved together with its whole vector."""
        return {
            "method": {name: tensor.clone() for name, tensor in self.method.state().items()},
            "kept": [{name: tensor.clone() for name, tensor in item.items()} for item in self.method.pending()],
            "statistics": self.stage.running.clone(),
            "totals": self.oracle.totals.clone(),
            "held": [delta for delta in self.held or [] if delta is not None],
            "peak": self.stage.peak,
            "activity": self.timeline.totals(self.rank),
        }

    def columns(self) -> dict[str, float]:
        """Return the modules' peaks of memory as gathered at the last evaluation."""
        return memory_columns(self._gathered["peaks"])

    def weights(self) -> Tensor:
        """Return the flat weights of all modules as gathered at the last evaluation."""
        return self._weights

    def running_statistics(self) -> Tensor:
        """Return the running batch-norm statistics of all modules as gathered at the last evaluation (k,)."""
        return self._gathered["statistics"].to(self.oracle.device)

    def method_states(self) -> list[Message]:
        """Return the method's state of all modules, as gathered at the last evaluation."""
        return self._gathered["methods"]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, of all ranks, as gathered at the last evaluation."""
        return {
            **self._gathered,
            "totals": self.oracle.totals,
            "step": self.step,
            "activity": self.timeline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore this rank's part of what `state_dict` returned on rank 0."""
        device, rank = self.oracle.device, self.rank
        # What is recorded anew while restoring is no new peak of memory.
        self.stage.method = None
        restore_module(self.method, self.stage, state, rank, device)
        running = state["statistics"].split([len(stage.running) for stage in self.partition.stages])
        self.stage.running.copy_(running[rank])
        self.stage.peak = state["peaks"][rank]
        # The sums are the last module's alone; elsewhere they would be counted a second time.
        if self.last:
            self.oracle.totals.copy_(state["totals"])
        if not self.last:
            # What the module above had sent down: it goes into the first iteration after the resume.
            found = state["travelling"][rank + 1]
            self.held = [found[0].to(device) if found else None]
        self._take({name: state[name] for name in ("methods", "kept", "statistics", "totals", "travelling", "peaks")})
        self.step = state["step"]
        self.timeline.load_state_dict(state["activity"])
