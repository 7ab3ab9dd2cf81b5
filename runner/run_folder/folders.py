"""Guards the folder of a run: a finished run is never overwritten, and a mistake leaves no folder behind."""

import fcntl
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.config.errors import InputError
from runner.run_folder.contents import SUMMARY, read_summary
from runner.run_folder.summary_keys import STATUS

log = logging.getLogger("dcrun")


def check_run_folder(folder: Path, key: str) -> None:
    """Refuse a folder that already holds a run, or that cannot be written.

    Args:
        folder: where a run will be written; it need not exist.
        key: the key that names it on the command line.

    Raises:
        InputError: names `key` and how to continue.
    """
    # A folder without a summary may be the user's own; a run may be written into it.
    if (folder / SUMMARY).exists():
        ways = f"continue that run with run.resume={folder}, or choose another folder"
        raise InputError(f"{key}={folder}: already holds a run ({_status(folder)}); {ways}")
    check_writable(folder, key)


def check_sweep_folder(folder: Path, key: str) -> None:
    """Refuse a folder that already holds a sweep, or that cannot be written.

    Raises:
        InputError: naming `key`.
    """
    if (folder / "multirun.yaml").exists():
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
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the same run.

    The lock belongs to the open descriptor and not to a file: the system drops it when the process ends, however it
    ends, so a killed run leaves no stale lock behind.

    Raises:
        InputError: another process writes the run now.
    """
    # Not inherited by programs that this process starts: one that outlives the run would hold the lock on.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Not waited for: whoever resumes a running run has made a mistake, and should hear of it at once.
        if not _lock(descriptor):
            raise InputError.of("run.resume", folder, "is being written by a process that runs", "a run that stopped")
        yield
    finally:
        # Closing gives the lock back.
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return whether a process writes this run now.

    Taking the lock and giving it back is the only way to find out.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:  # the file system has no locks: the run goes on without one
        log.info("the run folder cannot be locked: %s", exc)
    return True


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
        if parent == existing or any(parent.iterdir()):
            return
        parent.rmdir()


def _status(folder: Path) -> str:
    try:
        return str(read_summary(folder)[STATUS])
    except (OSError, ValueError, KeyError):
        return "its summary.json cannot be read"
