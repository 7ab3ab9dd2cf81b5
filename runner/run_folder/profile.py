"""Where the time of a run goes: `run.profile=true` measures the calls of some objects, and writes `profile.json`.

The file is in Chrome's trace event format (https://ui.perfetto.dev and chrome://tracing show it). Each call's time less
that of the measured calls inside it is its own, and counts for one category; so the categories, the start and what is
left add up to the time from the command to the end. Calls are measured in place of the originals, which a run without a
profile calls as they are: it pays nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from runner.config.startup import Startup
from runner.run_folder.contents import PROFILE
from runner.run_folder.jsonl import replace

GRADIENTS, UPDATE, HAND_OVER, WAITING = "forward, backward", "update", "hand-over", "waiting for other processes"
CLOCK, EVALUATION, DATA, LOGGING, REST = "clock", "evaluation", "data", "logging and checkpoints", "rest"
CATEGORIES = (GRADIENTS, UPDATE, HAND_OVER, WAITING, CLOCK, EVALUATION, DATA, LOGGING)
"""What a measured call can count for."""
MOST_SPANS = 200_000
"""Calls that the file shows, about 25 MB; all others count in the sums alone."""


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
    """Measures calls of the thread that made it, from now to `finish`.

    Args:
        start: of the command, over.
        settle: waits until the device has done what it was given, so that its work counts where it was asked for.
    """

    def __init__(self, start: Startup, settle: Callable[[], None] | None = None) -> None:
        self._start = start
        self._settle = settle
        self._thread = get_ident()
        self._calls: list[_Call] = []
        self._own: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        self._spans: list[tuple[str, str, float, float]] = []
        self._left_out = 0

    def measure(self, function: ProfiledCall) -> None:
        """Measure a function from now on."""
        call = getattr(function.owner, function.name, None)
        if call is None:
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
        if len(self._spans) < MOST_SPANS:
            self._spans.append((call.label, call.category, call.begin, took))
        else:
            self._left_out += 1

    def _each(self, values: Iterator[Any], label: str, category: str) -> Iterator[Any]:
        end = object()
        while True:
            with self.span(label, category):
                value = next(values, end)
            if value is end:
                return
            yield value

    def finish(self, folder: Path, console: Console) -> dict[str, float]:
        """Write `profile.json` and print the shares.

        Returns:
            Seconds by what they went into, from the command to now.
        """
        end = time.monotonic()
        seconds: dict[str, float] = {}
        for phase in self._start.phases():
            name = f"start: {phase.name}"
            seconds[name] = seconds.get(name, 0.0) + phase.end - phase.begin
        seconds |= {name: own for name, own in self._own.items() if own or name != WAITING}
        total = end - self._start.began
        seconds[REST] = total - sum(seconds.values())
        replace(folder / PROFILE, self._document(seconds, total))
        table = Table(title=f"where {total:,.1f} s went", show_header=False)
        for name, own in seconds.items():
            table.add_row(name, f"{own:,.2f} s", f"{100 * own / total:.1f} %")
        console.print(table)
        if self._left_out:
            console.print(f"{PROFILE} shows the first {MOST_SPANS:,} calls; the table counts {self._left_out:,} more")
        return seconds

    def _document(self, seconds: dict[str, float], total: float) -> bytes:
        began = self._start.began
        phases = [(f"start: {p.name}", "start", p.begin, p.end - p.begin) for p in self._start.phases()]
        events = [
            {
                "name": label,
                "cat": category,
                # A complete event: a begin and a length, in microseconds.
                "ph": "X",
                "ts": round(1e6 * (begin - began), 1),
                "dur": round(1e6 * took, 1),
                "pid": 0,
                "tid": 0,
            }
            for label, category, begin, took in (*phases, *self._spans)
        ]
        about = {"seconds": seconds, "total": total, "left_out": self._left_out}
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}).encode()
