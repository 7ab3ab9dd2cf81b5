"""Where the time of a run goes: `run.profile=true` measures the calls of some objects.

Each call's time less that of the measured calls inside it is its own, and counts for one category; so the categories,
the start and what is left add up to the time from the command to the end. Calls are measured in place of the originals,
which a run without a profile calls as they are: it pays nothing.

What is measured is a row of `profile.json` (`run_folder.profile_file`). Compute processes have rows of their own, of
what they report; so has each rank of a run on processes, which measures itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

from runner.config.startup import Startup
from runner.run_folder.profile_file import ProfileRow, Span

GRADIENTS, UPDATE, HAND_OVER, WAITING = "forward, backward", "update", "hand-over", "waiting for other processes"
CLOCK, EVALUATION, DATA, LOGGING, REST = "clock", "evaluation", "data", "logging and checkpoints", "rest"
CATEGORIES = (GRADIENTS, UPDATE, HAND_OVER, WAITING, CLOCK, EVALUATION, DATA, LOGGING)
"""What a measured call can count for."""
MOST_SPANS = 200_000
"""Calls of a row that the file shows, about 25 MB; all others count in the sums alone."""


class ProfiledCall(NamedTuple):
    """A function that is measured.

    Attributes:
        owner: whose attribute it is.
        name: the attribute; one that the owner lacks is left out.
        category: what its own time counts for.
    """

    owner: Any
    name: str
    category: str


class ReportedCall(NamedTuple):
    """A function that is called when another process has done something, with its number and with when it did it.

    Attributes:
        owner: whose attribute it is.
        name: the attribute: a function of the number, and of the begin and the end by `time.monotonic`.
        processes: what the other processes are called.
        category: what their time counts for.
    """

    owner: Any
    name: str
    processes: str
    category: str


Measured = ProfiledCall | ReportedCall


def profiled(owner: Any, category: str, *names: str) -> list[ProfiledCall]:
    """Return functions of one object that count for the same."""
    return [ProfiledCall(owner, name, category) for name in names]


class _Call(NamedTuple):
    label: str
    category: str
    begin: float
    # One number in a list: what the calls inside it took.
    inside: list[float]


class Profile:
    """Measures calls of the thread that made it, from now to `rows`.

    Args:
        start: of the command, over.
        settle: waits until the device has done what it was given, so that its work counts where it was asked for.
        most: calls that a row shows.
    """

    def __init__(self, start: Startup, settle: Callable[[], None] | None = None, most: int = MOST_SPANS) -> None:
        self._start = start
        self._settle = settle
        self._most = most
        self._thread = get_ident()
        self._calls: list[_Call] = []
        self._own: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        self._spans: list[Span] = []
        self._left_out = 0
        self._others: dict[str, ProfileRow] = {}

    def measure(self, function: Measured) -> None:
        """Measure a function from now on."""
        call = getattr(function.owner, function.name, None)
        if call is None:
            return
        if isinstance(function, ReportedCall):
            setattr(function.owner, function.name, lambda *given: self._note(function, *given))
            return
        label = f"{type(function.owner).__name__}.{function.name}"

        def measured(*given: Any, **named: Any) -> Any:
            # The time of another thread is not the run's; inside a call of the same category it is counted already.
            if get_ident() != self._thread or self._inside(function.category):
                return call(*given, **named)
            with self.span(label, function.category):
                returned = call(*given, **named)
            # What yields its results works when it is asked for the next one.
            return self._each(returned, label, function.category) if isinstance(returned, Iterator) else returned

        # On the object alone: others of its class are as they were.
        setattr(function.owner, function.name, measured)

    def _inside(self, category: str) -> bool:
        """Return whether what is done now counts for the call around it anyway."""
        if not self._calls:
            return False
        # What an evaluation computes is the evaluation's; a row that it logs is not.
        around = self._calls[-1].category
        return around == category or (around == EVALUATION and category != LOGGING)

    @contextmanager
    def span(self, label: str, category: str) -> Iterator[None]:
        """Measure what is done inside."""
        self._calls.append(_Call(label, category, time.monotonic(), [0.0]))
        try:
            yield
            if self._settle is not None and category in (GRADIENTS, UPDATE, EVALUATION):
                self._settle()
        finally:
            self._end()

    def _end(self) -> None:
        end = time.monotonic()
        call = self._calls.pop()
        took = end - call.begin
        self._own[call.category] += took - call.inside[0]
        if self._calls:
            self._calls[-1].inside[0] += took
        if len(self._spans) < self._most:
            self._spans.append(Span(call.label, call.category, call.begin, took))
        else:
            self._left_out += 1

    def _note(self, function: ReportedCall, number: int, begin: float, end: float) -> None:
        """Add to the row of another process what it did."""
        name = f"{function.processes} {number}"
        row = self._others.setdefault(name, ProfileRow(name, seconds={function.category: 0.0}))
        row.seconds[function.category] += end - begin
        if len(row.spans) < self._most:
            row.spans.append(Span(function.category, function.category, begin, end - begin))
        else:
            row.left_out += 1

    def _each(self, values: Iterator[Any], label: str, category: str) -> Iterator[Any]:
        end = object()
        while True:
            with self.span(label, category):
                value = next(values, end)
            if value is end:
                return
            yield value

    def rows(self, name: str) -> list[ProfileRow]:
        """Return what was measured, from the command to now: the row of this process, and those of its processes.

        Args:
            name: of this process.
        """
        end = time.monotonic()
        seconds: dict[str, float] = {}
        phases = self._start.phases()
        for phase in phases:
            start = f"start: {phase.name}"
            seconds[start] = seconds.get(start, 0.0) + phase.end - phase.begin
        seconds |= {category: own for category, own in self._own.items() if own or category != WAITING}
        seconds[REST] = end - self._start.began - sum(seconds.values())
        spans = [Span(f"start: {p.name}", "start", p.begin, p.end - p.begin) for p in phases]
        own = ProfileRow(name, seconds, [*spans, *self._spans], self._left_out)
        return [own, *(self._others[other] for other in sorted(self._others))]
