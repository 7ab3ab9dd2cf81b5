"""Checkpoints of runs that came to their end: what they take, and their removal.

A finished run needs them for one thing only, to be made longer (`run.resume=DIR run.epochs=N`). Its weights, curves and
summary are other files. An interrupted run goes on from its checkpoints, and a failed one may: those stay, whatever
their size, and so do those of a run that some process is writing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from runner.config.errors import InputError
from runner.report.collect import run_folders
from runner.run_folder import folders
from runner.run_folder.contents import CHECKPOINTS, checkpoint_files, read_summary
from runner.run_folder.summary_keys import ENDED, STATUS

_MOST_NAMED = 10


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run.

    Attributes:
        folder: the run folder.
        size: bytes.
        finished: whether the run came to its end and no process writes it, so that it does not need them to go on.
    """

    folder: Path
    size: int
    finished: bool


def find(paths: Iterable[Path]) -> list[Checkpoints]:
    """Return what has checkpoints below some paths, the largest first."""
    found = []
    for folder in run_folders(paths):
        if files := checkpoint_files(folder):
            size = sum(path.stat().st_size for _, path in files)
            found.append(Checkpoints(folder, size, _is_finished(folder)))
    return sorted(found, key=lambda own: -own.size)


def described(found: Sequence[Checkpoints]) -> str:
    """Return lines that say what would be removed, what stays, and what cannot be done afterwards."""
    finished = [own for own in found if own.finished]
    lines = [f"{decimal(own.size):>10}  {own.folder}" for own in finished[:_MOST_NAMED]]
    if len(finished) > _MOST_NAMED:
        lines.append(f"{_total(finished[_MOST_NAMED:]):>10}  in {len(finished) - _MOST_NAMED} more")
    lines.append(f"{_total(finished)} are checkpoints of finished runs ({len(finished)})")
    if kept := [own for own in found if not own.finished]:
        lines.append(f"{_total(kept)} are those of runs that may go on ({len(kept)}), and stay")
    if finished:
        lines.append("Without them a run cannot be made longer (run.resume=DIR run.epochs=N); weights and curves stay.")
    return "\n".join(lines)


def remove(found: Iterable[Checkpoints]) -> int:
    """Remove the checkpoints of finished runs.

    Returns:
        how many bytes were removed.

    Raises:
        OSError: a file cannot be removed.
    """
    removed = 0
    for own in found:
        try:
            # Locked while they go, and asked again under the lock: meanwhile somebody may have made the run longer.
            with folders.run_lock(own.folder):
                if not own.finished or not _has_ended(own.folder):
                    continue
                # The oldest first: the newest one is what a run goes on from, should this be stopped in between.
                for _, path in reversed(checkpoint_files(own.folder)):
                    size = path.stat().st_size
                    path.unlink()
                    removed += size
                if not any((own.folder / CHECKPOINTS).iterdir()):
                    (own.folder / CHECKPOINTS).rmdir()
        except InputError:
            # A process writes the run now.
            continue
    return removed


def _is_finished(folder: Path) -> bool:
    return _has_ended(folder) and not folders.is_locked(folder)


def _has_ended(folder: Path) -> bool:
    try:
        return read_summary(folder).get(STATUS) in ENDED
    except (OSError, ValueError):
        # Of a run whose summary is lost nobody knows.
        return False


def _total(found: Iterable[Checkpoints]) -> str:
    return decimal(sum(own.size for own in found))
