"""The clock of a simulated pipeline: when each module goes forward and backward; see `simulated.pipeline`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from algorithms.pipeline import Pipeline
from runner.gradients.partition import Partition
from runner.loop.clock import Clock
from runner.loop.pipeline_schedule import FORWARD_SHARE, extra_share, iteration_bytes, order_of_passes, piece_sizes
from runner.run_folder.timeline import Timeline


class PipelineClock:
    """The virtual seconds of the modules.

    Args:
        clock: virtual durations.
        timeline: what each module did when.
        methods: one instance for each module, set up.
        partition: the network in modules.
        batch_size: samples of a full batch.

    Attributes:
        now: by module, its second; modules meet only where one waits for another's message.
        arrivals: by module, when the error gradient arrives that it sent down last.
        nbytes: that all modules together have sent.
    """

    def __init__(
        self, clock: Clock, timeline: Timeline, *, methods: Sequence[Pipeline], partition: Partition, batch_size: int
    ) -> None:
        self.clock = clock
        self.timeline = timeline
        self.workers = len(methods)
        self.batch_size = batch_size
        # All modules have the same method, so the first one speaks for all.
        self.locked, self.replays = methods[0].locked, methods[0].replays
        self.waits_for_last = methods[0].waits_for_last
        self.pieces = methods[0].micro_batches
        self.order = order_of_passes(methods)
        # Passes at the beginning for which a module has no error gradient yet.
        self.lags = [0 if method.locked else method.delay for method in methods]
        self.partition = partition
        self.extras = [extra_share(method, partition.operations) for method in methods]
        # Of one sample, from each module to the next, and back.
        self.sample_bytes = [partition.nbytes(rank, 1) for rank in range(self.workers - 1)]
        self.now = [0.0] * self.workers
        self.arrivals = [0.0] * self.workers
        self.nbytes = 0

    @property
    def seconds(self) -> float:
        """The run's second: that of the module which is furthest."""
        return max(self.now)

    def iterate(self, step: int, size: int) -> None:
        """Take a batch of `size` samples forward through all modules, and all modules backward."""
        load = size / self.batch_size
        # The draw is of a whole network's gradient, of which the module does its share.
        whole = [self.clock.compute_seconds(rank, step, load) for rank in range(self.workers)]
        seconds = [drawn * share for drawn, share in zip(whole, self.partition.work_shares, strict=True)]
        extra = [drawn * share for drawn, share in zip(whole, self.extras, strict=True)]
        self.nbytes += iteration_bytes(self.partition, size)
        if not self.waits_for_last:
            self._interleave(step, size, seconds, extra)
            return
        travel = [self.clock.transfer_seconds(nbytes * size) for nbytes in self.sample_bytes]
        self._forward(seconds, travel)
        self._backward(seconds, extra, travel)

    def _wait(self, rank: int, until: float, sent: float) -> None:
        """Let a module wait for a message that was sent at `sent` and arrives at `until`."""
        now = self.now[rank]
        begin = min(max(now, sent), until)
        if now < begin:
            self.timeline.span(rank, "wait", now, begin)
        if max(now, begin) < until:
            self.timeline.span(rank, "transfer", max(now, begin), until)
        # A module that is later than the message finds it there.
        self.now[rank] = max(now, until)

    def _forward(self, seconds: list[float], travel: list[float]) -> None:
        for rank in range(self.workers):
            if rank:
                sent = self.now[rank - 1]
                self._wait(rank, sent + travel[rank - 1], sent)
            begin = self.now[rank]
            self.now[rank] += seconds[rank] * FORWARD_SHARE
            self.timeline.span(rank, "compute", begin, self.now[rank])

    def _backward(self, seconds: list[float], extra: list[float], travel: list[float]) -> None:
        # Before this second no module goes backward, in this model; see the first lines of `simulated.pipeline`.
        over = self.now[-1]
        # A copy: decoupled modules wait for what was sent in the iteration before, while this one is written down.
        arrivals = list(self.arrivals)
        for rank in reversed(range(self.workers)):
            # Sent and arrived at the same second: this is waiting alone, without a transfer.
            self._wait(rank, max(over, self.now[rank]), max(over, self.now[rank]))
            if rank < self.workers - 1:
                arrival = self.arrivals[rank + 1] if self.locked else arrivals[rank + 1]
                self._wait(rank, max(arrival, self.now[rank]), max(arrival - travel[rank], self.now[rank]))
            # The last module replays nothing: its forward pass is of the same iteration.
            again = FORWARD_SHARE * self.replays if rank < self.workers - 1 else 0.0
            begin = self.now[rank]
            self.now[rank] += seconds[rank] * (1 - FORWARD_SHARE + again) + extra[rank]
            self.timeline.span(rank, "compute", begin, self.now[rank])
            if rank:
                self.arrivals[rank] = self.now[rank] + travel[rank - 1]

    def _interleave(self, step: int, size: int, seconds: list[float], extra: list[float]) -> None:
        """Let each module go through its passes, each as soon as its message is there and the pass before is over."""
        sizes = piece_sizes(size, self.pieces)
        ranks = range(self.workers)
        features = [deque[tuple[float, float]]() for _ in ranks]
        # When messages were sent and arrive. Of one that was sent in the iteration before only its arrival is known.
        deltas = [deque([] if self.locked else [(arrival, arrival)]) for arrival in (*self.arrivals[1:], 0.0)]
        for rank, call, piece in self.order:
            below, share = ranks[-1] > rank, sizes[piece] / size
            if call == "forward":
                if rank:
                    self._take(rank, features[rank])
                self._compute(rank, seconds[rank] * share * FORWARD_SHARE)
                if below:
                    features[rank + 1].append(self._message(rank, rank, sizes[piece]))
                continue
            if below:
                self._take(rank, deltas[rank])
            if step * self.pieces + piece >= self.lags[rank]:
                again = FORWARD_SHARE * self.replays if below else 0.0
                self._compute(rank, seconds[rank] * share * (1 - FORWARD_SHARE + again) + extra[rank] * share)
            if rank:
                deltas[rank - 1].append(self._message(rank, rank - 1, sizes[piece]))
                self.arrivals[rank] = deltas[rank - 1][-1][1]

    def _message(self, rank: int, edge: int, samples: int) -> tuple[float, float]:
        """Return when a message leaves a module, and when it arrives; the edge is that after the module so numbered."""
        sent = self.now[rank]
        return sent, sent + self.clock.transfer_seconds(self.sample_bytes[edge] * samples)

    def _take(self, rank: int, messages: deque[tuple[float, float]]) -> None:
        sent, arrival = messages.popleft()
        self._wait(rank, arrival, sent)

    def _compute(self, rank: int, seconds: float) -> None:
        begin = self.now[rank]
        self.now[rank] += seconds
        self.timeline.span(rank, "compute", begin, self.now[rank])
