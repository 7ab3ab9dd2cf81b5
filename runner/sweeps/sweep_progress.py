"""How far the jobs of a sweep have come, by what they write: a job is not asked, and does not notice."""

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.run_folder import columns
from runner.run_folder.contents import METRICS, read_metrics, read_summary
from runner.run_folder.live_status import Status
from runner.run_folder.summary_keys import DIVERGED, PRUNED, STATUS

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
_SMOOTHING = 0.7


@dataclass
class JobProgress:
    """How far a job has come.

    Attributes:
        number: of the job in its sweep.
        label: what tells it from the others.
        epochs: effective passes that it will have made in all; None if unknown.
        state: `waiting`, `running`, `done`, `diverged`, `pruned` or `failed`.
        seconds: how long it took; None until its end, or if it did not run.
        epoch: effective passes.
        test_error: of its last evaluation, in percent; None before, or if it has none.
        samples_per_second: lately; None before it has moved.
    """

    number: int
    label: str
    epochs: float | None = None
    state: str = WAITING
    seconds: float | None = None
    epoch: float = 0.0
    test_error: float | None = None
    samples_per_second: float | None = None
    _folder: Path = field(default=Path())
    _begun: float = 0.0
    _first_epoch: float = 0.0
    # When it was seen last that the job had moved, and how many samples there were then.
    _mark: tuple[float, float] = (0.0, 0.0)
    # The date of the evaluations that have been read.
    _read: float = 0.0

    def begin(self, folder: Path, now: float) -> None:
        """Note that the job starts; a run that goes on has rows already, from which it is measured."""
        self._folder, self._begun, self.state = folder, now, RUNNING
        last = self._last_row()
        self._take(last)
        self._first_epoch, self._read = self.epoch, now
        self._mark = (now, last.get(columns.SAMPLES) or 0.0)

    def look(self, status: Status | None = None) -> None:
        """Read what the job has written since the last time.

        Args:
            status: what it says of itself between two evaluations, if it does.
        """
        with suppress(OSError):
            written = (self._folder / METRICS).stat().st_mtime
            if written > self._read:
                last, self._read = self._last_row(), written
                self._take(last)
                self._move(last.get(columns.SAMPLES, 0.0), written, 0.0)
        if status is not None:
            self.epoch = max(self.epoch, status.epoch)
            # Smoothed: between two looks there are few batches, or an evaluation.
            self._move(status.samples, status.when, _SMOOTHING)

    def _move(self, samples: float, when: float, smoothing: float) -> None:
        then, before = self._mark
        if samples <= before or when <= then:
            return
        rate, self._mark = (samples - before) / (when - then), (when, samples)
        known = rate if self.samples_per_second is None else self.samples_per_second
        self.samples_per_second = smoothing * known + (1 - smoothing) * rate

    def end(self, code: int | None, now: float) -> None:
        """Note that the job has ended with an exit code; None if it had been finished before."""
        if self.state == RUNNING:
            self.look()
            self.seconds = now - self._begun
        self.state = FAILED if code else DONE
        if not code:
            with suppress(OSError, ValueError):
                status = read_summary(self._folder).get(STATUS)
                self.state = status if status in (DIVERGED, PRUNED) else DONE

    def left(self, now: float) -> float | None:
        """Return the seconds that a running job has yet to go; None if that is unknown."""
        done, (written, _) = self.epoch - self._first_epoch, self._mark
        if self.state != RUNNING or self.epochs is None or done <= 0:
            return None
        whole = (written - self._begun) / done * max(self.epochs - self.epoch, 0.0)
        return max(whole - (now - written), 0.0)

    def passed(self, now: float) -> float:
        """Return the seconds since the job's start."""
        return now - self._begun

    def _take(self, row: dict[str, Any]) -> None:
        self.epoch = max(row.get(columns.EPOCH) or 0.0, self.epoch)
        self.test_error = row.get(columns.TEST_ERROR, self.test_error)

    def _last_row(self) -> dict[str, Any]:
        # The job may be about to write, or to cut its file back.
        with suppress(OSError, ValueError, IndexError):
            return read_metrics(self._folder)[-1]
        return {}


def sweep_left(jobs: Sequence[JobProgress], at_a_time: int, now: float) -> float | None:
    """Return the seconds that a sweep has yet to go; None while no job tells how long one takes.

    Args:
        jobs: all of them.
        at_a_time: how many run at a time.
        now: the time.
    """
    running = [job for job in jobs if job.state == RUNNING]
    known = {job.number: left for job in running if (left := job.left(now)) is not None}
    whole = [job.seconds for job in jobs if job.seconds is not None and job.state != FAILED]
    whole += [job.passed(now) + known[job.number] for job in running if job.number in known]
    if not whole:
        return None
    mean = statistics.fmean(whole)
    left = [known.get(job.number, max(mean - job.passed(now), 0.0)) for job in running]
    waiting = sum(job.state == WAITING for job in jobs)
    # However many there are at a time, the longest goes on to its end.
    return max(max(left, default=0.0), (sum(left) + waiting * mean) / at_a_time)


def clock() -> float:
    """Return the time by which files are dated."""
    return time.time()
