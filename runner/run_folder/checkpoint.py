"""Checkpoints of a run: a kill or a full disk costs at most the newest one, and each is checked before it is used.

A file `checkpoints/step-<updates>.pt` is what `torch.save` writes, followed by a line with the SHA-256 of all bytes
before it. It appears under its name only when it is whole and on the disk. It is loaded with `weights_only=True`, so it
holds data, never code.

The state of a run has three parts, which `runner.train.train` restores in this order:

1. `course` (the training control): counts of samples and updates, the run's seconds, when the next evaluation and the
   next checkpoint are due. It comes first because the executor reads these numbers from the control.
2. `executor`: the method's tensors, the leases of batches, in simulation also the clock and the messages in flight, and
   how many lines the timeline and the trace have. These files are cut back to so many lines.
3. `tracker` (the writer): how many rows `metrics.jsonl` has, and wandb's run. It comes last because the writer also
   starts the display, which begins at the restored epoch.

A checkpoint does not copy the line files: it holds only how many lines each had. Every line that it counts was written
before it. Lines that were written after it are cut off when the run is resumed, because the run makes them again.
"""

import hashlib
import logging
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.run_folder.contents import CHECKPOINTS, checkpoint_files
from runner.run_folder.jsonl import sync_folder

log = logging.getLogger("dcrun")

_MARK = b"\ndcrun-sha256:"
_TRAILER = len(_MARK) + 64  # the mark and the digest in hexadecimal
_CHUNK = 1 << 22


class _Sink:
    """A file for `torch.save` that hashes what is written, in one pass and without a second copy in memory."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        # An exception that passes through torch's writer turns into an unrelated RuntimeError of its destructor, which
        # hides that the disk is full, and so does a length short of the whole. So keep it for `_write` to raise.
        if self.error is None:
            try:
                self.file.write(data)
                # After the write: what the disk refused is not part of the file.
                self.digest.update(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.file.flush()
            except OSError as error:
                self.error = error


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path | None:
    """Write a checkpoint and remove the oldest ones.

    Tensors are written with their whole storage, and shared storages only once. Clone a small view of a large buffer
    before you save it.

    Args:
        folder: the run folder.
        step: position in the run, in updates; a larger one is newer. Existing checkpoints with a larger step belong to
            a course that was abandoned (they were damaged, or the run was started anew) and are removed.
        state: nested dicts, lists and tuples of tensors, int, float, str, bool and None.
        keep: how many checkpoints stay.

    Returns:
        The file, announced in the log as `checkpoint <name>` once it is safe. None if it could not be written (a full
        disk), which is logged as a warning: the run continues, and older checkpoints are unchanged.

    Raises:
        ValueError: if `keep` is less than 1.
        TypeError: if the state holds anything that could not be loaded again, naming where.
    """
    if keep < 1:
        raise ValueError(f"run.keep_checkpoints={keep}: a run keeps at least its newest one; allowed: 1 or more")
    # Before anything is written: a checkpoint that cannot be loaded again must never replace one that can.
    _check(state, "state")
    # Twelve digits, so that the names of a folder's checkpoints sort by age wherever they are listed.
    path = folder / CHECKPOINTS / f"step-{step:012d}.pt"
    # In the same folder: a rename from one file system to another fails.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The order matters: `_write` puts the content on the disk before the rename shows it, so the name never belongs
        # to half a file, not even after a power failure. The folder is flushed last, so that the rename is on the disk
        # too before older checkpoints are removed.
        _write(temporary, state)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        log.warning("checkpoint %s could not be written (%s); the run goes on", path, error.strerror or error)
        return None
    # A Ctrl-C too: a half-written file as large as a checkpoint would stay in the folder.
    except BaseException:
        _remove(temporary)
        raise
    # Only now, when it is safe: tests and users who watch the log may kill the run at this line.
    log.info("checkpoint %s", path.name)
    found = checkpoint_files(folder)
    abandoned = [file for number, file in found if number > step]
    # After the new one is safe, so that there is at no time less than one.
    for file in abandoned + [file for number, file in found if number <= step][keep:]:
        _remove(file)
    for file in path.parent.glob(".step-*.tmp"):  # a kill in the middle of a write leaves such a file
        _remove(file)
    return path


def newest_intact(
    folder: Path, wanted: Callable[[dict[str, Any]], bool] = lambda state: True
) -> tuple[dict[str, Any], Path] | None:
    """Load the newest intact checkpoint of a run folder; name damaged ones in the log.

    Args:
        folder: the run folder.
        wanted: returns whether a state is what is looked for.

    Returns:
        The state, with tensors in CPU memory, and its file. None if there is no such checkpoint.
    """
    # One after the other, from the newest: usually only one is read, and each may be gigabytes.
    for _, path in checkpoint_files(folder):
        try:
            state = _read(path)
            if wanted(state):
                return state, path
        except Exception as error:  # noqa: BLE001 (a damaged file can cause any exception of its reader)
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, str(error).splitlines()[0])
    return None


def clear(folder: Path, above: Path | None = None) -> None:
    """Remove the checkpoints of an earlier run in the same folder, so that a new run is never resumed from them.

    Args:
        folder: the run folder.
        above: only those that are newer than this one.
    """
    for _, path in checkpoint_files(folder):
        if path == above:
            return
        # Not `_remove`, which only warns: a checkpoint of another run that stays might be resumed.
        path.unlink()


def _write(temporary: Path, state: dict[str, Any]) -> None:
    with open(temporary, "wb") as file:
        sink = _Sink(file)
        torch.save(state, sink)  # pyright: ignore[reportArgumentType]
        if sink.error is not None:
            raise sink.error
        file.write(_MARK + sink.digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Any]:
    # The checksum comes first: torch's reader is only asked about files that are as they were written.
    size = path.stat().st_size - _TRAILER
    if size <= 0:
        raise ValueError(f"truncated to {size + _TRAILER} bytes")
    with open(path, "rb") as file:
        # In chunks: a checkpoint may be larger than the memory that is free.
        digest, left = hashlib.sha256(), size
        while left and (data := file.read(min(_CHUNK, left))):
            digest.update(data)
            left -= len(data)
        trailer = file.read()
        if not trailer.startswith(_MARK):
            raise ValueError("truncated: its checksum is missing")
        if trailer != _MARK + digest.hexdigest().encode():
            raise ValueError("its checksum does not match")
        # torch.load gets the file without the checksum's line, which it would take for part of the archive. A map does
        # that without a copy in memory.
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as body:
            return torch.load(body, map_location="cpu", weights_only=True)  # pyright: ignore[reportArgumentType]


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s could not be removed (%s)", path, error.strerror or error)


def _check(value: Any, where: str) -> None:
    """Refuse now what `weights_only=True` would refuse when the checkpoint is loaded."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise TypeError(f"{where}: a checkpoint cannot hold the key {key!r}; allowed: str and int")
            _check(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    # Compare exact types: a subclass (numpy.float64 is a float) is pickled as its own class, which the loader refuses.
    elif not isinstance(value, Tensor) and type(value) not in (int, float, str, bool, type(None)):
        raise TypeError(
            f"{where}: a checkpoint cannot hold a {type(value).__name__}; allowed: tensors and plain values"
        )
