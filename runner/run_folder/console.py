"""What a person sees of a run: a live bar on a terminal, a line per evaluation, and the result at the end.

On a terminal a bar over the epochs shows the live numbers below the lines; elsewhere (a file, a pipe, a dumb terminal)
there are the lines alone. Nothing here touches the run folder.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from runner.run_folder import columns
from runner.run_folder.contents import has_checkpoints

Live = SupportsFloat | Callable[[], SupportsFloat]
"""A number, a 0-d tensor, or a function that returns one: converted and called only when the display is refreshed."""

_REFRESH_SECONDS = 0.3
_BAR_WIDTH = 12
_BLOCKS = "▁▂▃▄▅▆▇█"
_COLORS = {"completed": "green", "diverged": "red", "failed": "red", "interrupted": "yellow", "running": "yellow"}


class Progress:
    """The display of one run, from `start` to `stop`.

    Args:
        epochs: effective passes that the run will make.
        virtual: whether the rows' `seconds` are virtual (simulated) or measured; they are labelled so.
        console: where to write; standard output by default.
        live: whether to show a bar; by default where the console is a terminal that can.
    """

    def __init__(
        self, *, epochs: float, virtual: bool, console: Console | None = None, live: bool | None = None
    ) -> None:
        self.console = console or Console()
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
        """Begin; `epoch` is where a resumed run goes on, so that the time left is told from what this session does."""
        self._begun = time.perf_counter()
        self._first_epoch = epoch
        if self.live:
            columns = (BarColumn(_BAR_WIDTH), TextColumn("{task.description}"))
            # No refreshing thread: it would take the interpreter from the run ten times a second.
            self._bar = Bar(*columns, console=self.console, auto_refresh=False, transient=True)
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
        """Show where the run is; meant to be called per update, and costs nothing between refreshes.

        Args:
            epoch: effective passes done.
            samples: gradient evaluations done in this run; their rate is shown.
            train_loss: of the last batches.
            staleness: of the last pushes, in updates.
        """
        now = time.perf_counter()
        if now < self._next or self._bar is None:
            return
        self._next = now + _REFRESH_SECONDS
        if self._mark is not None and now > self._mark[0]:
            rate = (samples - self._mark[1]) / (now - self._mark[0])
            self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        self._mark = (now, samples)
        description = self._describe(epoch, _number(train_loss), _number(staleness))
        self._bar.update(self._bar.task_ids[0], completed=epoch, description=description, refresh=True)

    def row(self, row: Mapping[str, Any], samples_per_second: float | None = None) -> None:
        """Write the line of an evaluation, above the bar if there is one."""
        self._error = row.get(columns.TEST_ERROR, self._error)
        # The evaluation's own time is not the training's: the rate is measured anew from the next update on.
        self._mark = None
        width = self.console.width if self.live else None
        text = row_line(row, self.epochs, self.unit, samples_per_second, width=width)
        self.console.print(Text(text), soft_wrap=True, highlight=False)

    def _describe(self, epoch: float, loss: float | None, staleness: float | None) -> str:
        """Return the live numbers that fit beside the bar, the more important ones if not all do."""
        done = epoch - self._first_epoch
        elapsed = time.perf_counter() - self._begun
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
        """Log handlers that hold the terminal from before the bar would write into it: they follow the redirection."""
        for handler in logging.getLogger().handlers + logging.getLogger("dcrun").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                self._redirected.append((handler, handler.stream))
                handler.setStream(sys.stdout if handler.stream is streams[0] else sys.stderr)


def seconds_unit(virtual: bool) -> str:
    """Return how seconds are labelled: 'virtual s' of a simulated cluster's clock, 's' of measured time."""
    return "virtual s" if virtual else "s"


def row_line(
    row: Mapping[str, Any],
    epochs: float,
    unit: str,
    samples_per_second: float | None = None,
    *,
    width: int | None = None,
) -> str:
    """Return one evaluation as a line of aligned columns, of what is in the row.

    Args:
        row: a line of `metrics.jsonl`.
        epochs: effective passes of the whole run.
        unit: what the row's seconds are, as of `seconds_unit`.
        samples_per_second: shown if given.
        width: characters at hand; columns that matter less are left out to fit. None shows all.
    """
    parts = [(0, f"epoch {_cell(row.get('epoch'), '.2f', len(f'{epochs:.2f}'))}/{epochs:g}")]
    for rank, key, label, form, size, suffix in (
        (1, columns.TEST_ERROR, "test error", ".2f", 6, " %"),
        (8, columns.TEST_LOSS, "test loss", ".4f", 6, ""),
        (7, columns.TRAIN_ERROR, "train error", ".2f", 6, " %"),
        (2, columns.TRAIN_LOSS, "train loss", ".4f", 6, ""),
        (6, columns.LR, "lr", ".4g", 7, ""),
        (5, columns.STALENESS_MEAN, "staleness", ".1f", 4, ""),
        (9, columns.STALENESS_MAX, "max", ".0f", 3, ""),
    ):
        if key in row:
            parts.append((rank, f"{label} {_cell(row[key], form, size)}{suffix}"))
    # The standard columns have a form of their own, or say nothing that is not shown already.
    parts += [(10, f"{key} {_cell(value, '.4g', 10)}") for key, value in row.items() if key not in columns.STANDARD]
    if "seconds" in row:
        parts.append((4, f"{_cell(row['seconds'], ',.1f', 8)} {unit}"))
    if samples_per_second is not None:
        parts.append((3, f"{_cell(samples_per_second, ',.0f', 7)} samples/s"))
    return _fit(parts, width)


def show_result(
    console: Console, summary: Mapping[str, Any], folder: Path, *, lr: float | None = None, curve: Sequence[Any] = ()
) -> None:
    """Print a run's result: a small table, what to do about it where something can be done, and the run folder.

    Args:
        console: where to.
        summary: the content of `summary.json`; its `clock` tells virtual from measured seconds.
        folder: the run folder.
        lr: `schedule.lr` of the run, for the hint of a diverged one.
        curve: test errors of all evaluations in percent, drawn as a small curve.
    """
    status = str(summary.get("status"))
    unit = seconds_unit(summary.get("clock") == "virtual")
    best, final = (_cell(summary.get(key), ".2f", 0) for key in ("best_test_error", "final_test_error"))
    rows = {
        "algorithm": str(summary.get("algorithm")),
        "model": str(summary.get("model")),
        "dataset": str(summary.get("dataset")),
        "workers": f"{summary.get('workers')} ({summary.get('cluster')})",
        "epochs": _cell(summary.get("epochs"), "g", 0),
        "test error": "" if final == "-" and columns.PRIMAL in summary else f"best {best} %, final {final} %",
        "suboptimality": _cell(summary.get(columns.SUBOPTIMALITY), ".4g", 0)
        if columns.SUBOPTIMALITY in summary
        else "",
        "duality gap": _cell(summary.get(columns.DUALITY_GAP), ".4g", 0) if columns.DUALITY_GAP in summary else "",
        "curve": sparkline(curve) if console.encoding.startswith("utf") else "",
        "time": f"{_cell(summary.get('seconds'), ',.1f', 0)} {unit}",
        "wall time": f"{_cell(summary.get('wall_seconds'), ',.1f', 0)} s",
        "speed": f"{_cell(summary.get('samples_per_second'), ',.0f', 0)} samples/s",
        "lost workers": str(summary.get("workers_lost") or ""),
        "slowest": slowest_line(summary),
        "staleness": staleness_line(summary.get("staleness_by_worker") or ()),
    }
    table = Table(show_header=False, title=None)
    table.add_column(style="bold")
    table.add_column()
    for label, value in rows.items():
        if value:
            table.add_row(label, Text(value))
    table.add_row("status", Text(status, style=_COLORS.get(status, "")))
    console.print(table)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to copy
    hint = _hint(status, summary, folder, lr)
    for text in filter(None, (hint, f"run folder: {folder}")):
        console.print(Text(text), soft_wrap=True, highlight=False)


def slowest_line(summary: Mapping[str, Any]) -> str:
    """Return who the slowest worker is and its own part of all waiting; empty if the summary does not tell."""
    slowest = summary.get("slowest")
    if not slowest:
        return ""
    seconds = f"{_cell(slowest['seconds_per_gradient'], '.3g', 0)} {seconds_unit(summary.get('clock') == 'virtual')}"
    times = f"{_cell(slowest['times_median'], '.2f', 0)} x the median"
    line = f"worker {slowest['worker']}: {seconds} a gradient, {times}"
    share = slowest["waiting_share"]
    return line if share is None else f"{line}; {_cell(100 * share, '.0f', 0)} % of the workers' waiting is this one's"


def staleness_line(values: Sequence[float | None]) -> str:
    """Return the mean staleness of each worker, of the two extremes if there are many; empty if nobody pushed."""
    known = [(value, worker) for worker, value in enumerate(values) if value is not None]
    if len(known) > 8:
        known = [min(known), max(known)]
    return ", ".join(f"worker {worker}: {value:.1f}" for value, worker in known)


def sparkline(values: Sequence[Any], width: int = 40) -> str:
    """Return values as bars from zero to the largest, thinned to `width`; empty for fewer than two finite ones."""
    finite = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if len(finite) < 2:
        return ""
    if len(finite) > width:
        finite = [finite[round(index * (len(finite) - 1) / (width - 1))] for index in range(width)]
    top = max(finite) or 1.0
    return "".join(_BLOCKS[min(int(max(value, 0.0) / top * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in finite)


def duration(seconds: float) -> str:
    """Return seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _hint(status: str, summary: Mapping[str, Any], folder: Path, lr: float | None) -> str:
    if status == "diverged":
        now = "" if lr is None else f" (it is {lr:g})"
        return f"The loss is infinite or NaN: try a smaller schedule.lr{now}, or a warm-up: schedule.warmup_epochs=5"
    if status == "interrupted":
        return f"Go on with: dcrun run.resume={folder}" if has_checkpoints(folder) else ""
    return str(summary.get("error") or "") if status == "failed" else ""


def _fit(parts: list[tuple[int, str]], width: int | None) -> str:
    """Join texts; if that is too wide, without those of the largest rank."""
    parts = list(parts)
    while len(text := "  ".join(part for _, part in parts)) > (width or math.inf) and len(parts) > 1:
        parts.remove(max(parts))
    return text


def _number(value: Live | None) -> float | None:
    if value is None:
        return None
    return float(value() if callable(value) else value)


def _cell(value: Any, form: str, width: int) -> str:
    """Return a number in its width; '-' for one that is missing or not finite."""
    if isinstance(value, str):
        return value.rjust(width)
    number = None if value is None else float(value)
    return ("-" if number is None or not math.isfinite(number) else format(number, form)).rjust(width)
