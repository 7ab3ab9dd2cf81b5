"""The clock of simulated workers that step together: when each is done with a step, and when a combination arrives.

One vector operation takes the step of all workers, with the bits of workers that are taken one by one.
"""

from __future__ import annotations

import numpy as np

from runner.loop.clock import Clock
from runner.loop.communication import Communication
from runner.loop.philox import Floats
from runner.run_folder.timeline import Timeline


class CollectiveClock:
    """The virtual seconds of all workers of a collective method.

    Args:
        clock: virtual durations.
        timeline: what each worker did when.
        combine: how contributions are combined, see `algorithms.collective.Collective`.
        nbytes: of a worker's contribution.
        gradients: gradient evaluations per sample of a step.

    Attributes:
        now: by worker, its second (M,).
        communication: seconds that combinations travelled, and how many of them computing hid.
        nbytes: that all workers together have sent.
    """

    def __init__(self, clock: Clock, timeline: Timeline, *, combine: str, nbytes: int, gradients: float) -> None:
        self.clock = clock
        self.timeline = timeline
        self.transfer_seconds = clock.combining_seconds(combine, nbytes, clock.workers)
        self.combination_bytes = clock.combining_bytes(combine, nbytes, clock.workers)
        self.gradients = gradients
        self.now = np.zeros(clock.workers)
        self.communication = Communication()
        self.nbytes = 0

    @property
    def seconds(self) -> float:
        """The run's second: the slowest worker's."""
        return float(self.now.max())

    def compute(self, step: int, loads: Floats) -> None:
        """Let all workers take a local step; `loads` (M,) are their samples relative to a full batch cut equally."""
        begin = self.now
        self.now = begin + self.clock.step_seconds(step, loads, self.gradients)
        self.timeline.spans("compute", begin, self.now)

    def send(self, earlier: float) -> tuple[float, float]:
        """Return when a combination of what all workers have contributed begins to travel, and when it arrives.

        Args:
            earlier: when the combination before it arrives, if that still travels; else any second that is past.
        """
        self.nbytes += self.combination_bytes
        # One network: a combination waits for the slowest worker and for the combination before it.
        begin = max(self.seconds, earlier)
        return begin, begin + self.transfer_seconds

    def receive(self, begin: float, arrival: float) -> None:
        """Let all workers take in a combination that travels from `begin` to `arrival`."""
        now = self.now
        # What a worker computed while the combination travelled hid that much of it.
        seen = np.minimum(np.maximum(now, begin), arrival)
        self.timeline.spans("wait", now, np.full_like(now, begin), now < begin)
        self.timeline.spans("transfer", seen, np.full_like(now, arrival), seen < arrival)
        # A worker whose clock is ahead goes on as it is: it has hidden the whole transfer.
        self.now = np.maximum(now, arrival)
        # Added up worker by worker: NumPy's own sum is by halves, and would have other bits than a run of before.
        hidden = float(np.add.accumulate(seen - begin)[-1])
        self.communication.add(self.transfer_seconds, hidden / len(now))
