"""The clock of simulated workers that step together: when each is done with a step, and when a combination arrives.

One vector operation takes the step of all workers, with the bits of workers that are taken one by one. Where all
combine with all, a combination begins and arrives at one second; where each has a group of its own (`GroupsClock`), at
one for each worker.
"""

from __future__ import annotations

import numpy as np

from algorithms.base import Collective, message_bytes
from runner.loop.clock import Clock
from runner.loop.communication import Communication
from runner.loop.mixing import Mixing
from runner.loop.philox import Floats
from runner.run_folder.timeline import Timeline

Seconds = float | Floats
"""One second for all workers, or one for each (M,)."""


def clock_of(method: Collective, clock: Clock, timeline: Timeline, parameters: int) -> CollectiveClock:
    """Return the clock of a collective method with so many weights."""
    nbytes, gradients = message_bytes(method.layout(parameters)), method.cost.gradients
    if method.combine == "mix":
        return GroupsClock(clock, timeline, Mixing(method, clock.workers), nbytes=nbytes, gradients=gradients)
    return CollectiveClock(clock, timeline, combine=method.combine, nbytes=nbytes, gradients=gradients)


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

    def send(self, earlier: Seconds) -> tuple[Seconds, Seconds]:
        """Return when a combination of what all workers have contributed begins to travel, and when it arrives.

        Args:
            earlier: when the combination before it arrives, if that still travels; else any second that is past.
        """
        self.nbytes += self.combination_bytes
        # One network: a combination waits for the slowest worker and for the combination before it.
        begin = max(self.seconds, earlier)
        return begin, begin + self.transfer_seconds

    def receive(self, begin: Seconds, arrival: Seconds) -> None:
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


class GroupsClock(CollectiveClock):
    """The virtual seconds of workers that combine with their neighbours alone, and wait for these alone.

    Args:
        clock: virtual durations.
        timeline: what each worker did when.
        mixing: the workers' groups.
        nbytes: of a worker's contribution.
        gradients: gradient evaluations per sample of a step.
    """

    def __init__(self, clock: Clock, timeline: Timeline, mixing: Mixing, *, nbytes: int, gradients: float) -> None:
        super().__init__(clock, timeline, combine="gather", nbytes=nbytes, gradients=gradients)
        self._seconds = np.array(mixing.seconds(clock, nbytes))
        # What is told of communication is the workers' mean.
        self.transfer_seconds = float(self._seconds.mean())
        self.combination_bytes = mixing.nbytes(clock, nbytes)
        # The members of all groups one after the other, and where each group begins.
        self._members = np.concatenate([np.array(group) for group in mixing.groups])
        self._first = np.cumsum([0, *(len(group) for group in mixing.groups[:-1])])

    def send(self, earlier: Seconds) -> tuple[Floats, Floats]:
        """See `CollectiveClock.send`, for the combination of each worker: it waits for the slowest of its group."""
        self.nbytes += self.combination_bytes
        slowest = np.maximum.reduceat(self.now[self._members], self._first)
        begin = np.maximum(slowest, earlier)
        return begin, begin + self._seconds
