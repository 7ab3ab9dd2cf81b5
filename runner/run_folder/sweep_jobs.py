"""The jobs of a sweep as its launcher notes them in the sweep's folder: those too that have no folder of their own.

A job has a folder when it has been composed and checked; before, while it waits, or if it ends sooner, only the
launcher knows of it. Lines are appended, one when something happens, and the last one of a job counts.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.run_folder.jsonl import append, scan_lines, to_line

log = logging.getLogger("dcrun")

JOBS = "jobs.jsonl"
WAITING, STARTED, ENDED = "waiting", "started", "ended"


@dataclass(frozen=True)
class NotedJob:
    """What is noted of a job.

    Attributes:
        number: of the job in its sweep.
        label: what tells it from the others.
        folder: where its run is, or will be.
        state: `WAITING`, `STARTED` or `ENDED`.
        code: its exit code; None before its end.
    """

    number: int
    label: str
    folder: Path
    state: str
    code: int | None = None

    @property
    def line(self) -> str:
        """The line of the file."""
        # Absolute: whoever reads it may be in another folder.
        return to_line({**self.__dict__, "folder": str(self.folder.absolute())})


def note(sweep: Path, jobs: Sequence[NotedJob], *, anew: bool = False) -> None:
    """Note what has become of some jobs; a disk that is full takes it from the page, not from the sweep.

    Args:
        sweep: the sweep's folder.
        jobs: the jobs.
        anew: forget what an earlier sweep has noted there.
    """
    text = "".join(job.line for job in jobs)
    try:
        if anew:
            (sweep / JOBS).unlink(missing_ok=True)
        # Not flushed to the disk: after a power failure the sweep is over anyway.
        append(sweep / JOBS, text, sync=False)
    except OSError as error:
        log.info("%s cannot be written: %s", sweep / JOBS, error)


def noted(sweep: Path) -> list[NotedJob]:
    """Return the jobs that are noted in a sweep's folder, by their numbers; none if the file cannot be read."""
    try:
        rows, _ = scan_lines(sweep / JOBS)
    except OSError:
        return []
    last: dict[int, NotedJob] = {}
    for row in rows:
        if (job := _job(row)) is not None:
            last[job.number] = job
    return [last[number] for number in sorted(last)]


def sweeps_below(paths: Iterable[Path]) -> list[Path]:
    """Return the sweeps' folders at or below some paths: a sweep is one folder below those of its name."""
    found = (file.parent for path in paths for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}{JOBS}"))
    return list(dict.fromkeys(found))


def _job(row: dict[str, Any]) -> NotedJob | None:
    try:
        return NotedJob(int(row["number"]), str(row["label"]), Path(row["folder"]), str(row["state"]), row["code"])
    except (KeyError, TypeError, ValueError):
        return None
