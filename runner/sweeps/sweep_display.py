"""Shows the jobs of a sweep if several run at a time: a live table on a terminal, elsewhere a line now and then."""

import sys
import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runner.run_folder.console import duration
from runner.run_folder.live_status import LiveStatus
from runner.run_folder.summary_keys import DIVERGED, PRUNED
from runner.sweeps.job import Job, PlannedJob, output_console, varying
from runner.sweeps.sweep_progress import DONE, FAILED, RUNNING, WAITING, JobProgress, clock, sweep_left

_REFRESH_SECONDS = 1.0
_LINE_SECONDS = 5.0
_STYLES = {RUNNING: "yellow", DONE: "green", DIVERGED: "red", FAILED: "red", PRUNED: "dim"}
# Which rows a small terminal shows first.
_IMPORTANCE = (RUNNING, FAILED, DIVERGED, WAITING, DONE, PRUNED)
_FRAME_LINES = 6


class SweepDisplay:
    """The display of jobs, shown between entry and exit; jobs are told to it by `begin` and `end`.

    Args:
        jobs: all jobs, those too that earlier runs finished.
        at_a_time: how many of them run at a time.
        console: where to write; standard output by default.
        live: whether to show a table; by default if the console is a terminal that can show one.
    """

    def __init__(
        self,
        jobs: Sequence[PlannedJob | Job],
        at_a_time: int,
        console: Console | None = None,
        live: bool | None = None,
    ) -> None:
        self.console = console or output_console()
        # FORCE_COLOR makes rich take a pipe for a terminal, so the file is asked too.
        self.live = self.console.is_interactive and self.console.file.isatty() if live is None else live
        self.at_a_time = at_a_time
        own = varying([job.overrides for job in jobs])
        self.jobs = {job.number: JobProgress(job.number, " ".join(own[place])) for place, job in enumerate(jobs)}
        self._statuses: dict[int, LiveStatus] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="sweep display", daemon=True)
        self._table = Live(console=self.console, auto_refresh=False, transient=True) if self.live else None
        self._told = ""

    def __enter__(self) -> Self:
        if self._table is not None:
            self._table.start()
            self.show()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._table is not None:
            self._table.stop()

    def begin(self, plan: PlannedJob, status: LiveStatus | None = None) -> None:
        """Show that a job runs; `status` is what it says of itself between its evaluations."""
        with self._lock:
            if status is not None:
                self._statuses[plan.number] = status
            job = self.jobs[plan.number]
            job.epochs = None if plan.config is None else float(plan.config.run.epochs)
            job.begin(plan.folder, clock())

    def end(self, job: Job) -> None:
        """Show that a job has ended, or had before."""
        with self._lock:
            self.jobs[job.number].end(job.code, clock())
            self._statuses.pop(job.number, None)

    def show(self) -> None:
        """Refresh the table, or print a line if something has happened since the last one."""
        with self._lock:
            for job in self.jobs.values():
                if job.state == RUNNING:
                    status = self._statuses.get(job.number)
                    job.look(None if status is None else status.read())
            if self._table is not None:
                self._table.update(self.table(), refresh=True)
            elif (line := self.line()) != self._told:
                self._told = line
                left = sweep_left(list(self.jobs.values()), self.at_a_time, clock())
                told = line if left is None else f"{line}; {duration(left)} left"
                self.console.print(Text(told), soft_wrap=True, highlight=False)
                sys.stdout.flush()

    def table(self) -> Table:
        """Return the table of the jobs, of as many as the terminal has lines for."""
        now = clock()
        table = Table(show_edge=False, caption=self._caption(now), caption_justify="left")
        for name in ("job", "overrides", "state", "epoch", "test error %", "samples/s", "left"):
            right = name not in ("overrides", "state")
            table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        room = max(self.console.height - _FRAME_LINES, 1)
        shown = sorted(self.jobs.values(), key=lambda job: (_IMPORTANCE.index(job.state), job.number))[:room]
        for job in sorted(shown, key=lambda job: job.number):
            left = job.left(now)
            table.add_row(
                str(job.number),
                Text(job.label),
                Text(job.state, style=_STYLES.get(job.state, "dim")),
                _epoch(job),
                "" if job.test_error is None else f"{job.test_error:.2f}",
                "" if job.samples_per_second is None else f"{job.samples_per_second:,.0f}",
                "" if left is None else duration(left),
            )
        return table

    def line(self) -> str:
        """Return the counts and the running jobs as a line."""
        running = [job for job in self.jobs.values() if job.state == RUNNING]
        parts = [self._counts()]
        for job in running:
            error = "" if job.test_error is None else f", test error {job.test_error:.2f} %"
            rate = "" if job.samples_per_second is None else f", {job.samples_per_second:,.0f} samples/s"
            parts.append(f"job {job.number} at epoch {_epoch(job)}{error}{rate}")
        return "; ".join(parts)

    def _refresh(self) -> None:
        # A thread, since the launcher's own wait for their jobs.
        while not self._over.wait(_REFRESH_SECONDS if self.live else _LINE_SECONDS):
            self.show()

    def _counts(self) -> str:
        counts = Counter(job.state for job in self.jobs.values())
        return ", ".join(
            f"{counts[state]} {state}" for state in (RUNNING, WAITING, DONE, PRUNED, DIVERGED, FAILED) if counts[state]
        )

    def _caption(self, now: float) -> Text:
        left = sweep_left(list(self.jobs.values()), self.at_a_time, now)
        hidden = len(self.jobs) - max(self.console.height - _FRAME_LINES, 1)
        more = f"; {hidden} not shown" if hidden > 0 else ""
        return Text(self._counts() + ("" if left is None else f"; {duration(left)} left") + more)


def _epoch(job: JobProgress) -> str:
    if job.state == WAITING or job.epochs is None:
        return "" if job.state == WAITING else f"{job.epoch:.2f}"
    return f"{job.epoch:.2f}/{job.epochs:g}"
