"""Decoded tensors kept on disk, so that a dataset is decoded once: a safetensors file that opens in under a second.

The file's name follows the source's path and how it was decoded; inside are the state of the source it was made from
(sizes, times of change, checksums of its ends) and a sha256 of every tensor. A file that is damaged, was made from
another state of the source, or is not ours at all, is rebuilt. It is written under a temporary name and renamed, and
only one process at a time builds it: others wait and then open it.

Caches are in the folder that `dataset.cache` names; else in the one that the environment variable DCRUN_CACHE names;
else in `.dcrun-cache` beside the source; where that is not writable, in `$XDG_CACHE_HOME/dcrun` or `~/.cache/dcrun`.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data.base import home_expanded

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]

FORMAT = "dcrun-data-2"  # 1: transparent pixels, 16-bit grey and EXIF orientation were read wrongly
_ENDS = 1 << 16
_DEPTH = 2  # split/class/file


def check_cache(folder: object) -> Path | None:
    """Return the folder that `dataset.cache` names, or None.

    Raises:
        ValueError: it is not a path, or something else is there.
    """
    if folder is None:
        return None
    allowed = "a folder, made if missing, or null"
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise ValueError(f"dataset.cache={folder}: is not a path; allowed: {allowed}")
    path = home_expanded(Path(folder), f"dataset.cache={folder}")
    if path.exists() and not path.is_dir():
        raise ValueError(f"dataset.cache={folder}: is a file; allowed: {allowed}")
    return path


def cached(
    source: Path, options: dict[str, object], build: Callable[[], Tensors], chosen: Path | None = None
) -> Tensors:
    """Return the tensors decoded from `source`: from its cache if that is intact and up to date, else from `build()`.

    Args:
        source: file or folder the tensors come from; it must exist.
        options: whatever else decides the result (JSON values).
        build: decodes the source; what it raises is passed on, and nothing is written then.
        chosen: the cache's folder, from `check_cache`; None as in `cache_folders`.

    Returns:
        The named tensors, on CPU, contiguous.

    Raises:
        ValueError: the chosen folder cannot be written.
    """
    source = source.resolve()
    name = f"{source.name.split('.')[0] or 'data'}-{_sha256([str(source), options])[:16]}"
    state = _sha256([FORMAT, str(source), options, source_state(source)])
    folders = [chosen] if chosen else cache_folders(source)
    for folder in folders:
        if (tensors := _opened(folder / f"{name}.safetensors", state)) is not None:
            return tensors
    with _alone(folders, name) as folder:
        path = folder / f"{name}.safetensors" if folder else None
        if path and (tensors := _opened(path, state, quiet=True)) is not None:
            return tensors  # built by another process while this one waited
        if path is None and chosen:
            raise ValueError(f"dataset.cache={chosen}: cannot be written; allowed: a writable folder, or null")
        started = time.perf_counter()
        tensors = {key: value.contiguous() for key, value in build().items()}
        log.info("%s: decoded in %.1f s", source, time.perf_counter() - started)
        if path is None:
            log.warning(
                "%s: no writable folder for its cache (%s); it will be decoded again next time",
                source,
                ", ".join(map(str, folders)) or "nor a home folder",
            )
        else:
            try:
                _write(path, tensors, state)
                log.info("%s: cached in %s", source, path)
            except OSError as error:
                log.warning("%s: cannot write its cache (%s); it will be decoded again next time", path, error)
    return tensors


def cache_folders(source: Path) -> list[Path]:
    """Return the folders where the cache of `source` may be, the preferred one first."""
    if named := os.environ.get("DCRUN_CACHE"):
        return [home_expanded(Path(named), f"DCRUN_CACHE={named}")]
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        user = [(Path(home) if home else Path.home() / ".cache") / "dcrun"]
    except RuntimeError:  # a user without a home, as in many containers
        user = []
    beside = source if source.is_dir() else source.parent
    # The mode is asked too, for root may write where the owner said not to.
    writable = os.access(beside, os.W_OK) and beside.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    return [beside / ".dcrun-cache", *user] if writable else user


def source_state(source: Path) -> str:
    """Return a digest of what tells one state of a source from another.

    Of a file: its size, time of change, first and last 64 KiB. Of a folder: the names, sizes and times of its
    files, except those whose name starts with a dot. (The end of a gzip file is its checksum.)
    """
    if source.is_dir():
        return _sha256(sorted(_files(source, "")))
    status = source.stat()
    with source.open("rb") as file:
        head = file.read(_ENDS)
        file.seek(max(0, status.st_size - _ENDS))
        ends = hashlib.sha256(head + file.read(_ENDS)).hexdigest()
    return _sha256([status.st_size, status.st_mtime_ns, ends])


def _files(directory: Path | str, prefix: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                folder, status = entry.is_dir(), entry.stat()
            except OSError:  # a link that leads nowhere or in a circle
                folder, status = False, entry.stat(follow_symlinks=False)
            if folder:
                if prefix.count("/") < _DEPTH:  # a link may lead back up
                    yield from _files(entry.path, f"{prefix}{entry.name}/")
                continue
            yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _opened(path: Path, state: str, *, quiet: bool = False) -> Tensors | None:
    """Return the tensors in `path`, or None if it is missing, out of date or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("state") != state:
                if not quiet:
                    log.info("%s: made from another state of its source; rebuilding it", path)
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if {f"sha256:{key}": _digest(tensor) for key, tensor in tensors.items()} == {
            key: value for key, value in metadata.items() if key.startswith("sha256:")
        }:
            return tensors
        problem = "a checksum differs"
    except (SafetensorError, OSError, ValueError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
    if not quiet:
        log.warning("%s: damaged cache (%s); rebuilding it", path, problem)
    return None


def _write(path: Path, tensors: Tensors, state: str) -> None:
    metadata = {"state": state} | {f"sha256:{key}": _digest(tensor) for key, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata)
        temporary.chmod(0o644)  # safetensors leaves it to its owner, but a cache beside shared data is for all
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except SafetensorError as error:  # wraps the system's own error, as a full disk
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folders: list[Path], name: str) -> Iterator[Path | None]:
    """Hold the lock `name` in the first of `folders` that can be written; yield that folder, or None if none can."""
    with contextlib.ExitStack() as held:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                file = held.enter_context((folder / f".{name}.lock").open("w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.info("%s: waiting for another process that builds this cache", folder / name)
                    fcntl.flock(file, fcntl.LOCK_EX)  # released by the system if its holder dies
            except OSError:
                log.debug("%s: not writable", folder)
                continue
            yield folder
            return
        yield None
