"""Fetches published files: from their publisher, a mirror, or a folder. Nothing stays whose md5 is another one.

A file is written under a temporary name and renamed. One process at a time fetches it; others wait and then find it.
"""

import errno
import fcntl
import hashlib
import http.client
import logging
import os
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds without an answer after which a download has failed."""
SCHEMES = ("https", "http", "file")
ALLOWED = "https://, http:// or file:// and the folder that holds the published files, or null"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A published file: its name, and its md5 in hex."""

    name: str
    md5: str


def check_url(url: object) -> str | None:
    """Return `dataset.url`: the address of the folder that holds the published files; None means the publisher's.

    Raises:
        ValueError: it is not an address that can be read.
    """
    if url is None:
        return None
    if not isinstance(url, str) or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError(f"dataset.url={url!r}: is not an address (blanks are written %20); allowed: {ALLOWED}")
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise ValueError(f"dataset.url={url}: is not an address ({error}); allowed: {ALLOWED}") from None
    if parts.scheme not in SCHEMES or not (parts.path.startswith("/") if parts.scheme == "file" else parts.hostname):
        raise ValueError(f"dataset.url={url}: is not an address that can be read; allowed: {ALLOWED}")
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        what = f"names a host, {parts.netloc}"
        raise ValueError(f"dataset.url={url}: {what}; allowed: file:// and an absolute path, as file:///mnt/mirror")
    return url


def fetch(file: Published, folder: Path, url: str | None, publisher: str, title: str) -> Path:
    """Fetch a file into a folder, which is made if missing.

    Args:
        file: what to fetch.
        folder: where to put it.
        url: address of the folder that holds it, or of the file itself; None for `publisher`.
        publisher: the publisher's address.
        title: of the data set, for messages.

    Returns:
        The file's path.

    Raises:
        ValueError: it could not be fetched, and why, or another file came.
    """
    source = url or publisher
    address = source if source.endswith(f"/{file.name}") else f"{source.rstrip('/')}/{file.name}"
    key = "dataset.download=true" if url is None else f"dataset.url={url}"
    failed = f"{key}: could not fetch {title} into {folder}: {file.name} from {address}: "
    path = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if its holder dies
            if not (path.is_file() and _md5(path) == file.md5):
                log.info("fetching %s", address)
                _download(address, path, file.md5)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ValueError(failed + _cause(error)) from None
    return path


def _download(address: str, path: Path, md5: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _opened(address) as source, temporary.open("wb") as target:
            digest, length = hashlib.md5(usedforsecurity=False), 0
            while block := source.read(_CHUNK):
                target.write(block)
                digest.update(block)
                length += len(block)
            told = getattr(source, "headers", {}).get("Content-Length")
        # urllib returns what it got when a connection ends early.
        if told is not None and told.isdigit() and length < int(told):
            raise ValueError(f"the connection ended after {length} of {told} bytes")
        if digest.hexdigest() != md5:
            raise ValueError(f"its md5 is {digest.hexdigest()} ({length} bytes), that of the published file {md5}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _opened(address: str) -> IO[bytes]:
    if address.startswith("file:"):
        return open(urllib.request.url2pathname(urllib.parse.urlsplit(address).path), "rb")
    return urllib.request.urlopen(address, timeout=TIMEOUT)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _cause(error: BaseException) -> str:
    """Say in words why a download failed."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code} ({error.reason})"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _cause(error.reason)
    if isinstance(error, socket.gaierror):
        return f"the name of the host is not known ({error.strerror}); is this machine online?"
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    if isinstance(error, ssl.SSLError):
        return f"no trusted connection ({_line(error)})"
    if isinstance(error, http.client.HTTPException):
        return f"the connection broke off ({type(error).__name__})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full ({error.strerror})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return _line(error)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
