"""Shows on a terminal how far a run has come: a live bar below the lines of the evaluations.

A file, a pipe or a dumb terminal gets only the lines. Nothing here touches the run folder.
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from runner.run_folder import columns, live_status
from runner.run_folder.console import PIPED_WIDTH, duration, row_line, seconds_unit

Live = SupportsFloat | Callable[[], SupportsFloat]
"""A number, a 0-d tensor, or a function that returns one. It is read only when the display is refreshed."""

_REFRESH_SECONDS = 0.3
_BAR_WIDTH = 12


class Progress:
    """The display of one run, from `start` to `stop`.

    Args:
        epochs: effective passes that the run will make.
        virtual: whether the `seconds` of the rows are virtual (simulated) or measured; they are labelled so.
        console: where to write; standard output by default.
        live: whether to show a bar; by default if the console is a terminal that can show one.
    """

    def __init__(
        self, *, epochs: float, virtual: bool, console: Console | None = None, live: bool | None = None
    ) -> None:
        self.console = console or Console()
        # FORCE_COLOR makes rich take a pipe for a terminal, so the file is asked too.
        self.live = self.console.is_interactive and self.console.file.isatty() if live is None else live
        self.epochs = epochs
        self.unit = seconds_unit(virtual)
        self._bar: Bar | None = None
        self._redirected: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
        self._error: float | None = None
        self._rate: float | None = None
        self._begun = 0.0
        self._first_epoch = 0.0
        self._next = 0.0
        self._mark: tuple[float, float] | None = None  # time and samples at the last refresh

    def start(self, epoch: float = 0.0) -> None:
        """Begin the display.

        Args:
            epoch: effective passes at which a resumed run continues. The time left is then estimated from the passes
                since.
        """
        self._begun = time.perf_counter()
        self._first_epoch = epoch
        if self.live:
            columns = (BarColumn(_BAR_WIDTH), TextColumn("{task.description}"))
            # A refreshing thread would take the interpreter from the run ten times a second, so `update` refreshes.
            self._bar = Bar(*columns, console=self.console, auto_refresh=False, transient=True)
            # Taken before the bar starts, which puts proxies in their place.
            streams = (sys.stdout, sys.stderr)
            self._bar.start()
            self._bar.add_task(self._describe(epoch, None, None), total=self.epochs)
            self._bar.update(self._bar.task_ids[0], completed=epoch, refresh=True)
            self._redirect(streams)

    def stop(self) -> None:
        """End the live display, if there is one; may be called twice."""
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected.clear()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(
        self, *, epoch: float, samples: int, train_loss: Live | None = None, staleness: Live | None = None
    ) -> None:
        """Show the progress. Call it for every update: it costs nothing between two refreshes.

        Args:
            epoch: effective passes done.
            samples: gradient evaluations done in this run, whose rate is shown.
            train_loss: of the last batches.
            staleness: of the last pushes, in updates.
        """
        now = time.perf_counter()
        # Before any value is read: a 0-d tensor on a GPU would make the host wait.
        if now < self._next or not (self._bar is not None or live_status.is_held()):
            return
        self._next = now + _REFRESH_SECONDS
        live_status.write(epoch, samples)
        if self._bar is None:
            return
        if self._mark is not None and now > self._mark[0]:
            rate = (samples - self._mark[1]) / (now - self._mark[0])
            # Smoothed, or the number would jump at every refresh.
            self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        self._mark = (now, samples)
        description = self._describe(epoch, _number(train_loss), _number(staleness))
        self._bar.update(self._bar.task_ids[0], completed=epoch, description=description, refresh=True)

    def row(self, row: Mapping[str, Any], samples_per_second: float | None = None) -> None:
        """Write the line of an evaluation, above the bar if there is one."""
        self._error = row.get(columns.TEST_ERROR, self._error)
        # An evaluation takes time in which nothing is trained, so the rate is measured anew from the next update.
        self._mark = None
        # Not the console's, which is a guess where there is no terminal.
        width = self.console.width if self.live else PIPED_WIDTH
        text = row_line(row, self.epochs, self.unit, samples_per_second, width=width)
        # A Text, and no highlighting: rich would colour numbers and take [...] for markup.
        self.console.print(Text(text), soft_wrap=True, highlight=False)

    def _describe(self, epoch: float, loss: float | None, staleness: float | None) -> str:
        """Return the live numbers that fit beside the bar, the more important ones if not all fit."""
        done = epoch - self._first_epoch
        elapsed = time.perf_counter() - self._begun
        # From the passes of this process alone: what an earlier one took says nothing about this machine.
        left = elapsed / done * max(self.epochs - epoch, 0.0) if done > 0 else None
        parts = [
            (0, f"epoch {epoch:.2f}/{self.epochs:g}"),
            (1, "" if self._error is None else f"test error {self._error:.2f} %"),
            (5, "" if loss is None else f"train loss {loss:.4f}"),
            (3, "" if self._rate is None else f"{self._rate:,.0f} samples/s"),
            (4, "" if staleness is None else f"staleness {staleness:.1f}"),
            (2, "" if left is None else f"{duration(left)} left"),
        ]
        parts = [part for part in parts if part[1]]
        while (
            len(text := "  ".join(part for _, part in parts)) > self.console.width - _BAR_WIDTH - 2 and len(parts) > 1
        ):
            parts.remove(max(parts))
        return text

    def _redirect(self, streams: tuple[TextIO, TextIO]) -> None:
        """Redirect log handlers that hold the terminal from before the bar, as they would write into the bar."""
        for handler in logging.getLogger().handlers + logging.getLogger("dcrun").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                self._redirected.append((handler, handler.stream))
                handler.setStream(sys.stdout if handler.stream is streams[0] else sys.stderr)


def _number(value: Live | None) -> float | None:
    if value is None:
        return None
    # Here a GPU's tensor is waited for, which is why this is called for a refresh alone.
    return float(value() if callable(value) else value)
