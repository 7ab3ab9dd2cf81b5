"""Temporary files of runs on this machine, and the removal of those that killed runs have left.

Each is locked by the process that made it. The system drops the lock when the process ends, however it ends: so the
next run can tell what belongs to nobody any more.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

log = logging.getLogger("dcrun")

PREFIX = "dcrun-run-"
MEMORY = Path("/dev/shm")
"""The folder whose files are memory, on Linux."""
NEW_SECONDS = 10.0
"""Younger files are left alone: their process may be about to lock them."""

_owned: dict[Path, int] = {}
"""What this process has made, with the descriptor that holds the lock."""


def make_folder() -> Path:
    """Make a temporary folder that belongs to this process."""
    return _own(Path(tempfile.mkdtemp(prefix=PREFIX)), os.O_RDONLY)


def make_file(nbytes: int) -> Path:
    """Make a file of so many bytes that belongs to this process: in memory where the system has such a folder.

    Raises:
        OSError: there is not so much room. Whoever maps the file would else be killed where the room ends.
    """
    # On a disk the kernel would write every change back.
    file, name = tempfile.mkstemp(prefix=PREFIX, dir=MEMORY if MEMORY.is_dir() else None)
    try:
        # Allocated, not only sized: a page that is touched when there is no room for it kills the process (SIGBUS).
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, nbytes)
        else:
            os.truncate(file, nbytes)
    except OSError:
        Path(name).unlink()
        raise
    finally:
        os.close(file)
    return _own(Path(name), os.O_RDWR)


def discard(path: Path) -> None:
    """Remove what `make_folder` or `make_file` made; who has mapped a file keeps its memory."""
    _remove(path)
    if (descriptor := _owned.pop(path, None)) is not None:
        os.close(descriptor)


def remove_leftovers() -> None:
    """Remove what ended processes of this user have left."""
    for folder in {Path(tempfile.gettempdir()), MEMORY}:
        for path in folder.glob(f"{PREFIX}*"):
            try:
                found = path.stat()
                if found.st_uid == os.getuid() and time.time() - found.st_mtime > NEW_SECONDS and not _is_owned(path):
                    log.info("removing %s, which a killed run has left", path)
                    _remove(path)
            except OSError as error:
                # Removed meanwhile, by its owner or by another run.
                log.info("%s could not be looked at (%s)", path, error.strerror or error)


def _own(path: Path, flags: int) -> Path:
    _owned[path] = os.open(path, flags | os.O_CLOEXEC)
    fcntl.flock(_owned[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path


def _is_owned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
