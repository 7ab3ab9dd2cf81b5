"""Guards the folder of a run: one process writes it, a finished run is never overwritten, a mistake leaves no folder.

The lock of a folder belongs to an open descriptor and not to a file: the system drops it when the process ends, however
it ends, so a killed run leaves no stale lock behind. It is taken before anything is written, by the process that the
user started; of a run on processes rank 0, which writes, holds the same lock (`SharedLock`).
"""

import fcntl
import itertools
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from runner.config.errors import InputError
from runner.config.paths import as_typed
from runner.run_folder.contents import SUMMARY, read_summary
from runner.run_folder.jsonl import write_document
from runner.run_folder.run_writer import SUMMARY_KEYS
from runner.run_folder.summary_keys import INTERRUPTED, RUNNING, STATUS

log = logging.getLogger("dcrun")

_PROBE_SECONDS = 0.3
"""How long to wait for a lock: who asks whether a folder is locked holds the lock for a moment (`is_locked`)."""
_held: dict[Path, int] = {}
"""The folders that this process has locked, with the descriptor that holds each lock."""


def check_run_folder(folder: Path, key: str) -> None:
    """Refuse a folder that already holds a run, or that cannot be written.

    Args:
        folder: where a run will be written; it need not exist.
        key: the key that names it on the command line.

    Raises:
        InputError: names `key` and how to continue.
    """
    try:
        # A folder without a summary may be the user's own; a run may be written into it.
        holds_run = (folder / SUMMARY).exists()
    except OSError as exc:  # a name too long
        raise InputError.of(key, folder, f"cannot be used ({exc.strerror})", "a folder you may write to") from exc
    if holds_run:
        ways = f"continue that run with {as_typed('run.resume', folder)}, or choose another folder"
        raise InputError(f"{key}={folder}: already holds a run ({_status(folder)}); {ways}")
    check_writable(folder, key)


def check_sweep_folder(folder: Path, key: str) -> None:
    """Refuse a folder that already holds a sweep, or that cannot be written.

    Raises:
        InputError: naming `key`.
    """
    # Hydra writes multirun.yaml for its own sweeps; an experiment's are known by their jobs.
    if (folder / "multirun.yaml").exists() or next(folder.glob("*/.hydra/config.yaml"), None):
        raise InputError(f"{key}={folder}: already holds a sweep; choose another folder")
    check_writable(folder, key)


def check_writable(folder: Path, key: str) -> None:
    """Refuse a folder in which nothing could be written once it is created.

    Raises:
        InputError: naming `key` and what the operating system says.
    """
    try:
        # Write a file, because permissions do not decide: root ignores them, and a read-only file system has them too.
        with tempfile.TemporaryFile(dir=nearest_existing(folder)):
            pass
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise InputError.of(key, folder, f"cannot be written ({reason})", "a folder you may write to") from exc


def free_folder(folder: Path) -> Path:
    """Return the folder itself or, if it exists, the first of `<folder>-2`, `-3` and so on that does not exist."""
    # A sweep that goes on keeps the folder of a failed job beside the new one.
    names = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in itertools.count(1))
    return next(path for path in names if not path.exists())


@contextmanager
def new_run_folder(folder: Path, key: str, check: Callable[[Path, str], None] = check_run_folder) -> Iterator[None]:
    """Make the folder of a run that begins, or of a sweep, and lock it; nothing is written into it before.

    Args:
        folder: where the run will be written.
        key: the key that names it on the command line.
        check: refuses a folder that holds one already.

    Raises:
        InputError: it cannot be made or written, holds a run, or another process begins or writes one there now.
    """
    while True:
        check(folder, key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed again by a run that ended before it began
        except OSError as exc:  # a link that leads nowhere stands in the way, or the disk has no more inodes
            reason = exc.strerror or str(exc)
            raise InputError.of(key, folder, f"cannot be made ({reason})", "a folder you may write to") from exc
        _lock_or_refuse(descriptor, key, folder, "another folder")
        # The lock may be that of a folder which its run has removed since we opened it; another one has its name now.
        if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            break
        os.close(descriptor)
    with _holding(folder, descriptor):
        # Once more: another run may have come to its end between the first look and the lock.
        check(folder, key)
        yield


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the same run; does nothing if this process holds the lock already.

    Raises:
        InputError: another process writes the run now.
    """
    if folder.resolve() in _held:
        yield
        return
    # Not inherited by programs that this process starts: one that outlives the run would hold the lock on.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    _lock_or_refuse(descriptor, "run.resume", folder, "a run that stopped")
    with _holding(folder, descriptor):
        yield


class SharedLock:
    """A lock that this process holds, as an argument for a process that it spawns, which then holds it as well.

    The lock is free when both have ended: rank 0 of a killed launcher still writes for a moment.

    Args:
        folder: the run folder; if this process has not locked it, neither does the spawned one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Give the spawned process a duplicate of the descriptor; called while the process is started."""
        # `flock` belongs to the open file description, which a duplicated descriptor
        # shares: the lock lasts until both close.
        descriptor = _held.get(self.folder.resolve())
        return _adopted, (self.folder, None if descriptor is None else reduction.DupFd(descriptor))


def _adopted(folder: Path, duplicate: Any) -> SharedLock:
    if duplicate is not None:
        _held[folder.resolve()] = duplicate.detach()
    return SharedLock(folder)


@contextmanager
def _holding(folder: Path, descriptor: int) -> Iterator[None]:
    place = folder.resolve()
    _held[place] = descriptor
    try:
        yield
    finally:
        del _held[place]
        # Closing gives the lock back.
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return whether a process writes this run now.

    Taking the lock and giving it back is the only way to find out.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared: two processes that ask at the same time do not take each other for a run.
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock_or_refuse(descriptor: int, key: str, folder: Path, allowed: str) -> None:
    # Not waited for any longer: whoever resumes a running run has made a mistake, and should hear of it at once.
    deadline = time.monotonic() + _PROBE_SECONDS
    while not _lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise InputError.of(key, folder, "is being written by a process that runs", allowed)
        time.sleep(_PROBE_SECONDS / 10)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:  # the file system has no locks: the run goes on without one
        log.info("the run folder cannot be locked: %s", exc)
    return True


def mark_interrupted(folder: Path, why: str, *, better: bool = False) -> None:
    """Write into the summary that a run has ended, and why, if the process that wrote it could not do so itself.

    Args:
        folder: the run folder.
        why: what ended it.
        better: whether this is known better than by the run, where that has noted an interruption itself.
    """
    try:
        summary = read_summary(folder)
        # Any other status is the run's own word on how it ended, and stands.
        if summary.get(STATUS, RUNNING) in ((RUNNING, INTERRUPTED) if better else (RUNNING,)):
            # A run that was still being built has no summary: readers find every key in this one too.
            summary = summary or dict.fromkeys(SUMMARY_KEYS)
            write_document(folder / SUMMARY, {**summary, STATUS: INTERRUPTED, "error": why})
    except (OSError, ValueError) as exc:
        log.info("%s cannot say how the run ended: %s", folder / SUMMARY, exc)


def nearest_existing(folder: Path) -> Path:
    """Return the folder itself or, if it does not exist, the nearest of its parents that does."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def discard(folder: Path, existing: Path) -> None:
    """Remove a run folder in which no run started, and the folders created for it.

    Args:
        folder: the run folder; kept if it holds more than the configuration and the log.
        existing: the nearest folder that existed before (see `nearest_existing`), which is kept.
    """
    # Anything else in the folder was written by a run, or by the user.
    if folder.absolute() == existing or {path.name for path in folder.iterdir()} - {".hydra", "dcrun.log"}:
        return
    shutil.rmtree(folder)
    # Upwards, only through folders that this command created and that are empty now.
    for parent in folder.absolute().parents:
        # A parent that has something in it by now belongs to another run as well.
        if parent == existing or any(parent.iterdir()):
            return
        parent.rmdir()


def _status(folder: Path) -> str:
    try:
        return str(read_summary(folder)[STATUS])
    except (OSError, ValueError, KeyError):
        return "its summary.json cannot be read"
