"""How far runs are that are still going, from what they write into their folders: no run is asked, and none notices.

Jobs of a sweep that have no folder, as they wait, are just starting or ended too soon, are those that the sweep's
launcher has noted (`run_folder.sweep_jobs`).
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runner.report import metrics
from runner.report.collect import run_folders
from runner.report.folder import read
from runner.report.run import Run, finite
from runner.report.settings import differing, label
from runner.run_folder import columns, folders, sweep_jobs
from runner.run_folder.contents import METRICS, SUMMARY
from runner.run_folder.summary_keys import COMPLETED, FAILED, RUNNING
from runner.run_folder.sweep_jobs import NotedJob, sweeps_below

NOT_RUN, STARTING = "not run", "starting"
"""The states of a job whose sweep has ended without it, and of one that has begun and has no folder yet."""
STOPPED = "stopped"
"""The state of a run that nobody writes any more although it has not ended, as after a power failure."""
_CONFIG = Path(".hydra") / "config.yaml"


@dataclass(frozen=True)
class Job:
    """A run as it is now.

    Attributes:
        name: its folder below the place that is watched; without one its sweep's folder and its number.
        label: what tells it from the others.
        state: its status, `STOPPED`, or of a job without a folder `waiting`, `STARTING` or `NOT_RUN`.
        epoch: effective passes so far; None before the first evaluation.
        epochs: effective passes that it was asked for.
        error: its last test error, in percent; None if it has none.
        left: wall seconds that it has yet to go, as fast as it was so far; None if it is not going or just began.
    """

    name: str
    label: str
    state: str
    epoch: float | None
    epochs: float | None
    error: float | None
    left: float | None


class LiveJobs:
    """The runs below some folders; what has ended is not read again.

    Args:
        paths: the folders.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._read: dict[Path, tuple[tuple[float, ...], Run]] = {}

    def look(self) -> tuple[str, list[dict[str, Any]]]:
        """Return a name of this state of the folders, which is another one after each change, and all jobs."""
        found = run_folders(self._paths)
        now = time.time()
        stamps = {folder: _stamps(folder) for folder in found}
        for folder, name in found.items():
            known = self._read.get(folder)
            if known is None or known[0] != stamps[folder]:
                self._read[folder] = stamps[folder], read(folder, name)
        runs = {folder: self._read[folder][1] for folder in found}
        apart = differing(list(runs.values()))
        jobs = [_job(folder, run, apart, now) for folder, run in runs.items()]
        jobs = [asdict(job) for job in _with_noted(jobs, list(runs), self._paths)]
        return f"{hash(tuple(sorted((str(folder), own) for folder, own in stamps.items()))):x}", jobs


def _stamps(folder: Path) -> tuple[float, ...]:
    made = []
    for name in (SUMMARY, METRICS):
        try:
            status = os.stat(folder / name)
        except OSError:
            made += [0.0, 0.0]
        else:
            made += [status.st_mtime, float(status.st_size)]
    return tuple(made)


def _job(folder: Path, run: Run, apart: list[str], now: float) -> Job:
    # A run that was just begun has no summary yet.
    state = RUNNING if run.status == "broken" and not run.summary else run.status
    if state == RUNNING and not _is_written(folder):
        state = STOPPED
    epoch, epochs = metrics.measured(run, "final_epoch"), finite(run.flat.get("run.epochs"))
    left = _left(folder, epoch, epochs, now) if state == RUNNING else None
    name = label(run, apart) + ("" if run.seed is None else f" seed={run.seed}")
    error = run.curve(columns.TEST_ERROR)[-1] if run.rows else None
    return Job(run.name, name, state, epoch, epochs, error, left)


def _with_noted(jobs: list[Job], places: Sequence[Path], paths: Iterable[Path]) -> list[Job]:
    """Return the jobs and, after them, those that only their sweep knows of.

    Args:
        jobs: those that have a folder.
        places: their folders.
        paths: where to look for sweeps.
    """
    known = {place: at for at, place in enumerate(places)}
    jobs = list(jobs)
    for path in paths:
        for sweep in sweeps_below([path]):
            going, name = _is_written(sweep), "" if sweep == path else f"{sweep.relative_to(path)}/"
            for noted in sweep_jobs.noted(sweep):
                at = known.get(noted.folder.resolve())
                if at is None:
                    state = _noted_state(noted, going)
                    jobs.append(Job(f"{name}{noted.number}", noted.label, state, None, None, None, None))
                # It crashed before it could say so itself.
                elif noted.code and jobs[at].state == STOPPED:
                    jobs[at] = replace(jobs[at], state=FAILED)
    return jobs


def _noted_state(noted: NotedJob, going: bool) -> str:
    """Return the state of a job that has no folder; `going` says whether its sweep still runs."""
    if noted.state == sweep_jobs.ENDED:
        return FAILED if noted.code else COMPLETED
    if not going:
        return NOT_RUN if noted.state == sweep_jobs.WAITING else STOPPED
    return noted.state if noted.state == sweep_jobs.WAITING else STARTING


def _is_written(folder: Path) -> bool:
    try:
        return folders.is_locked(folder)
    except OSError:
        # The folder is gone, or may not be opened by this user.
        return False


def _left(folder: Path, epoch: float | None, epochs: float | None, now: float) -> float | None:
    if not epoch or epochs is None:
        return None
    try:
        begun, written = (os.stat(folder / name).st_mtime for name in (_CONFIG, METRICS))
    except OSError:
        return None
    # As long as the passes so far took each, less what has gone by since the last of them.
    return max((written - begun) / epoch * max(epochs - epoch, 0.0) - (now - written), 0.0)
