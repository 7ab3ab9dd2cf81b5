"""Jobs of a sweep: what to run, how it ended, and what a sweep prints about its jobs."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.run_folder import columns
from runner.run_folder.contents import read_summary
from runner.run_folder.summary_keys import FAILED, STATUS
from runner.sweeps.measures import columns_of, measure_text

_TAIL_LINES = 3


@dataclass(frozen=True)
class Job:
    """A finished job of a sweep."""

    number: int
    overrides: tuple[str, ...]
    folder: Path
    code: int

    @property
    def label(self) -> str:
        """The overrides of the job, which distinguish it."""
        return " ".join(self.overrides) or "(no overrides)"

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        # `subprocess` gives a process that a signal ended the negative number of it.
        return f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"

    def summary(self) -> dict[str, Any]:
        """Return the content of the job's `summary.json`; empty if the job did not get so far."""
        return read_summary(self.folder)


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep that is going to run."""

    number: int
    overrides: tuple[str, ...]
    folder: Path
    command: tuple[str, ...]
    behind: Path | None = None
    """The folder of an equal run that another process is writing: the job is planned anew when that has ended."""
    config: DictConfig | None = None
    """The configuration that the command composes to; None if the command is not dcrun's, as in tests."""

    @property
    def device(self) -> str:
        """`run.device` of the job."""
        return "auto" if self.config is None else str(self.config.run.device)

    @property
    def starts_processes(self) -> bool:
        """Whether the job starts processes of its own, ranks or compute processes."""
        if self.config is None:
            return False
        # The launcher asks for compute processes on the command line alone.
        spread = "run.compute_processes=auto" in self.command
        return spread or self.config.cluster.kind == "processes" or self.config.run.compute_processes != 1


def announce_job(plan: PlannedJob | Job, total: int) -> None:
    """Print which job is next, and its folder if an earlier run finished it."""
    title = f"job {plan.number} ({plan.number + 1} of {total}): {' '.join(plan.overrides)}"
    # A Text, because rich would take [...] in a string for markup.
    output_console().rule(Text(title), align="left", style="dim")
    if isinstance(plan, Job):
        print(f"finished before, in {plan.folder}", flush=True)
    # The job writes to the same terminal by itself: what waits in our buffer would come out after it.
    sys.stdout.flush()


def report_failure(job: Job, output: Path | None = None) -> None:
    """Print the name of a job that failed, and the end of the file that took its output, if there is one."""
    if job.code == 0:
        return
    lines = [f"dcrun: job {job.number} ({job.label}) failed with {job.ending}"]
    if output is not None and output.is_file():
        told = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        lines += [f"    {line}" for line in told] + [f"    (in {output})"]
    # At once, since several jobs may fail at the same time.
    print("\n".join(lines), file=sys.stderr, flush=True)


def varying(overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return of the overrides of each job those that not all jobs share, or all if nothing would be left."""
    sets = [set(own) for own in overrides]
    # What all share says nothing about a job.
    shared = set.intersection(*sets) if sets else set()
    return [[text for text in own if text not in shared] or list(own) or ["(no overrides)"] for own in overrides]


def print_table(jobs: Sequence[Job], folder: Path) -> None:
    """Print a row for each job, with values of its `summary.json`."""
    table = Table(title=f"sweep in {folder}", title_justify="left")
    summaries = [job.summary() for job in jobs]
    clocks = {str(summary["clock"]) for summary in summaries if summary.get("clock")}
    # Virtual and measured seconds are not comparable: of both, each is labelled.
    numbers = columns_of(summaries) | {columns.SECONDS: f"{next(iter(clocks))} s" if len(clocks) == 1 else "seconds"}
    for column in ("job", "overrides", "status", *numbers.values()):
        table.add_column(column, justify="left" if column in ("overrides", "status") else "right", overflow="fold")
    for job, summary, own in zip(jobs, summaries, varying([job.overrides for job in jobs]), strict=True):
        # A job that only prints an answer (run.estimate) leaves no summary, and has not failed.
        status = str(summary.get(STATUS, FAILED if job.code else "-"))
        table.add_row(
            str(job.number),
            Text(" ".join(own)),
            status if job.code == 0 else f"{status}, {job.ending}",
            *(measure_text(key, summary.get(key)) for key in numbers if key != columns.SECONDS),
            measure_text(columns.SECONDS, summary.get(columns.SECONDS))
            + (f" {summary.get('clock', '')}".rstrip() if len(clocks) > 1 else ""),
        )
    output_console().print(table)


def output_console() -> Console:
    """Return a console for standard output."""
    # In a file there is no width to ask for, and rich would fold at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=120)
