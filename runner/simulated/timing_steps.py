"""The steps of collectives and pipelines on the clock alone, without gradients and weights."""

from __future__ import annotations

from collections import deque

import numpy as np

from runner.loop.batches import Batches
from runner.loop.philox import Floats
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.collective_clock import CollectiveClock, Seconds
from runner.simulated.pipeline_clock import PipelineClock
from runner.simulated.timing_run import C, TimingRun


class TimingSteps(TimingRun[C]):
    """A run whose workers all take part in each update."""

    @property
    def finished(self) -> bool:
        """See `TimingRun.finished`."""
        return self.updates == len(self.batches)


class TimingCollective(TimingSteps[CollectiveClock]):
    """The steps and combinations of a method, at the seconds of `SimulatedCollective`.

    Args:
        clock: of the workers.
        period: local steps from one contribution to the next.
        delay: local steps that a combination travels.
        early: whether it begins to travel before the step.
        batches: see `TimingRun`; each is one of all workers together.
        timeline: likewise; that of `clock`.
    """

    def __init__(
        self,
        clock: CollectiveClock,
        *,
        period: int,
        delay: int,
        early: bool,
        batches: Batches,
        timeline: TimelineTotals,
    ) -> None:
        super().__init__(clock, batches, timeline)
        self.workers = len(clock.now)
        self.period = period
        self.delay = delay
        self.early = early
        # Of each combination on its way: the step after which it is applied, when it left, when it arrives.
        self.travelling: deque[tuple[int, Seconds, Seconds]] = deque()
        self._loads: dict[int, Floats] = {}

    def advance(self, epoch: float, most: int) -> None:
        """See `TimingRun.advance`."""
        clock, end = self.clock, self.events + most
        while self.events < end and not self.finished:
            step = self.updates
            size = self.batches.size_of(step)
            if self.early:
                self._send(step)
            clock.compute(step, self._load(step, size))
            if not self.early:
                self._send(step)
            while self.travelling and self.travelling[0][0] == step:
                clock.receive(*self.travelling.popleft()[1:])
            self.samples_seen += size * clock.gradients
            self.updates += 1
            self.seconds = clock.seconds
            self.events += self.workers
            if self.reached(epoch):
                return

    def _send(self, step: int) -> None:
        if (step + 1) % self.period == 0:
            begin, arrival = self.clock.send(self.travelling[-1][2] if self.travelling else 0.0)
            self.travelling.append((step + self.delay, begin, arrival))

    def _load(self, step: int, size: int) -> Floats:
        """Return the workers' samples of a step relative to a full batch cut equally (M,)."""
        # Two sizes at most: an epoch's last batch is short.
        if size not in self._loads:
            shares = self.batches.share_sizes(step, self.workers)
            self._loads[size] = np.array([own * self.workers / self.batches.size for own in shares])
        return self._loads[size]

    def columns(self) -> dict[str, float]:
        """Return what communication took."""
        return self.clock.communication.columns()


class TimingPipeline(TimingSteps[PipelineClock]):
    """The iterations of a pipeline, at the seconds of `SimulatedPipeline`.

    Args:
        clock: of the modules.
        batches: see `TimingRun`.
        timeline: likewise; that of `clock`.
    """

    def __init__(self, clock: PipelineClock, *, batches: Batches, timeline: TimelineTotals) -> None:
        super().__init__(clock, batches, timeline)

    def advance(self, epoch: float, most: int) -> None:
        """See `TimingRun.advance`."""
        clock, end = self.clock, self.events + most
        while self.events < end and not self.finished:
            size = self.batches.size_of(self.updates)
            clock.iterate(self.updates, size)
            self.samples_seen += size
            self.updates += 1
            self.seconds = clock.seconds
            # Each module goes forward and backward once.
            self.events += clock.workers
            if self.reached(epoch):
                return
