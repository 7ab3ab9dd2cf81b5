"""Reads and writes JSON documents and lines that are readable after a kill at any point.

A document (`summary.json`) is replaced as a whole: temporary name, flush, rename. A line file (`metrics.jsonl`) only
grows. When a run is resumed, it is cut back to the lines that the checkpoint counts.

Why flush before the rename: without it, a file system may put the rename on the disk before the content, and after a
power failure the name belongs to an empty file. A kill of the process alone would not need it.
"""

import errno
import json
import logging
import math
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

log = logging.getLogger("dcrun")


def to_jsonable(value: Any) -> Any:
    """Convert a value to what strict JSON can hold.

    Args:
        value: nested mappings, lists and tuples of numbers, strings, None, paths and one-element arrays or tensors.

    Returns:
        The same value, built from dict, list, int, float, str, bool and None; NaN and infinities become None.

    Raises:
        TypeError: for anything else, as a tensor of several elements.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # Strict JSON has no NaN: readers in other languages would refuse the whole line.
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # Call .item() only for one-element arrays and tensors: for others it raises an error that names neither key nor
    # value.
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return to_jsonable(value.item())
    raise TypeError(f"cannot be written as JSON: {type(value).__name__} {value!r:.80}")


def to_line(row: Mapping[str, Any]) -> str:
    """Return one line of a .jsonl file, newline included (see `to_jsonable` for what a row may hold)."""
    # `allow_nan=False` raises should a value have slipped through, rather than write what other readers refuse.
    return json.dumps(to_jsonable(row), allow_nan=False) + "\n"


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power failure, if the file system can.

    A rename changes the folder, not the file: flushing the file does not put the new name on the disk.
    """
    # A folder can be opened only for reading, which is enough to flush it.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Write a whole file at once: a reader sees the old content or the new content, never a part.

    Raises:
        OSError: if it cannot be written. The old file is then unchanged, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    # A Ctrl-C leaves no temporary file either.
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append(path: Path, text: str, *, sync: bool = True) -> None:
    """Append whole lines to a file: all of them, or none.

    Args:
        path: the file.
        text: the lines.
        sync: whether they are on the disk on return, whatever happens to the machine then.

    Raises:
        OSError: if they cannot be written, as on a full disk. The file is then as it was.
    """
    left = memoryview(text.encode())
    # Unbuffered: what could not be written must not be tried again when the file is closed.
    with open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            while left:
                left = left[file.write(left) :]
            if sync:
                os.fsync(file.fileno())
        except OSError:
            # Half a line may be there: the next one would be appended to it.
            os.ftruncate(file.fileno(), size)
            raise


def overwrite(path: Path, content: bytes) -> None:
    """Write a file's content in its place, where there is no room for a second file.

    A kill in the middle leaves a mixture, so this is only for a disk that is full.

    Raises:
        OSError: the file does not exist, or takes more of the disk now than it did. Its content is then as it was.
    """
    # Unbuffered: what could not be written must not be tried again when the file is closed.
    with open(path, "r+b", buffering=0) as file:
        # Blocks of 512 bytes are what the file has already; within them no room is asked for.
        if len(content) > 512 * os.fstat(file.fileno()).st_blocks:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before = file.read()
        try:
            _write_from_start(file, content)
        except OSError:
            # A limit on the size of files stops in the middle. As many bytes of the old content fit as of the new one.
            _write_from_start(file, before[: file.tell()])
            file.truncate(len(before))
            raise
        file.truncate()


def _write_from_start(file: FileIO, content: bytes) -> None:
    file.seek(0)
    left = memoryview(content)
    # An unbuffered file may take a part, and says how much.
    while left:
        left = left[file.write(left) :]


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document atomically, indented, with its keys in order; `to_jsonable` says what it may hold."""
    replace(path, (json.dumps(to_jsonable(document), indent=2, allow_nan=False) + "\n").encode())


def read_document(path: Path) -> dict[str, Any]:
    """Return the content of a JSON document.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} holds no JSON object: it is nested too deep") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no JSON object")
    return document


def scan_lines(path: Path, most_bytes: int = -1) -> tuple[list[dict[str, Any]], int]:
    """Read the intact lines of a .jsonl file.

    Args:
        path: the file.
        most_bytes: how much of its beginning to read; all of it by default.

    Returns:
        The rows, and how many lines cannot be read. A last line without its newline counts as neither: a kill cut it
        off, or the limit did, or it is being written.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        # At once and not line by line: an incomplete last line is cut off at the last newline.
        content = file.read(most_bytes)
    rows, unread = [], 0
    for text in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            unread += 1
    return rows, unread


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a .jsonl file, as `scan_lines` does; a missing file has no rows.

    Raises:
        ValueError: a line cannot be read. The writer only appends, so a kill does not leave such a file.
    """
    if not path.exists():
        return []
    rows, unread = scan_lines(path)
    # The reader that must be exact, for a resume; a report counts such lines instead (`scan_lines`).
    if unread:
        raise ValueError(f"{path}: {unread} {'line' if unread == 1 else 'lines'} cannot be read")
    return rows


def truncate_lines(path: Path, lines: int) -> int:
    """Cut a .jsonl file back to its first lines, atomically: a kill leaves the old file or the new one.

    Args:
        path: the file; a missing file counts as empty.
        lines: how many lines to keep, the number in a checkpoint.

    Returns:
        How many lines the file has now. If these are fewer than asked for (a power failure can take the last ones), a
        warning is logged.

    Raises:
        ValueError: if `lines` is negative.
    """
    if lines < 0:
        raise ValueError(f"lines={lines}: a file cannot have fewer than 0 lines; allowed: 0 or more")
    content = path.read_bytes() if path.exists() else b""
    end, kept = 0, 0
    # By newlines alone: a line that cannot be parsed counts too, as it did for whoever wrote it.
    while kept < lines and (newline := content.find(b"\n", end)) >= 0:
        end, kept = newline + 1, kept + 1
    if kept < lines:
        log.warning("%s has %d whole lines, the checkpoint knows of %d", path, kept, lines)
    # This also cuts off a last line without its newline, which a kill left: the next line would be appended to it.
    if end < len(content):
        replace(path, content[:end])
    return kept
