"""Notes which jobs a sweep has and how far each is, for whoever watches: a job that waits has no folder of its own."""

from collections.abc import Sequence
from pathlib import Path

from runner.run_folder.sweep_jobs import ENDED, STARTED, WAITING, NotedJob, note
from runner.sweeps.job import Job, PlannedJob, varying


class JobNotes:
    """The notes of one launcher; its threads may call it at the same time, as a line is written at once.

    Args:
        sweep: the sweep's folder.
    """

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self._labels: dict[int, str] = {}

    def plan(self, jobs: Sequence[PlannedJob | Job]) -> None:
        """Note that jobs will be run, or are finished already."""
        labels = varying([job.overrides for job in jobs])
        self._labels |= {job.number: " ".join(own) for job, own in zip(jobs, labels, strict=True)}
        # A search launches in several parts: what was noted of the first ones stays.
        first = any(job.number == 0 for job in jobs)
        note(self.sweep, [self._noted(job, WAITING) for job in jobs], anew=first)

    def note(self, jobs: Sequence[PlannedJob | Job]) -> None:
        """Note that planned jobs have started, or that jobs have ended."""
        note(self.sweep, [self._noted(job, STARTED) for job in jobs])

    def _noted(self, job: PlannedJob | Job, state: str) -> NotedJob:
        own = self._labels[job.number], job.folder
        return (
            NotedJob(job.number, *own, ENDED, job.code) if isinstance(job, Job) else NotedJob(job.number, *own, state)
        )
