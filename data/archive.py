"""Images in a folder `split/class/*.jpg|png`, or in a `.tar[.gz]` of one, listed in a fixed order and read one by one.

Nothing of an archive is ever written to disk: members are read by name, and one that points outside, a link or a device
makes the archive refused. Files that are left out are counted and named in one warning.
"""

import gzip
import io
import logging
import lzma
import os
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from data.decode import Encoded

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")
TRAIN = "train"
TEST = ("test", "val")  # `val` counts where there is no `test`, as in ImageNet's layout
LAYOUT = "train/<class>/*.jpg|png and test/<class>/*.jpg|png"
NOISE = ("thumbs.db", "desktop.ini")  # what file managers leave, besides files whose name starts with a dot
NAMED = 3  # files that a warning names
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, OSError)


_Found = tuple[str, int, Callable[[], Encoded]]  # split/class/name, position, read


@dataclass(frozen=True)
class ImageFile:
    """One image: its name for messages, its class number, where it lies in the archive, and what reads it."""

    name: str
    target: int
    position: int
    read: Callable[[], Encoded]


@dataclass(frozen=True)
class Tree:
    """Images of both splits, ordered by class and name, and the names of the classes."""

    train: list[ImageFile]
    test: list[ImageFile]
    classes: list[str]


class Skipped:
    """Files below the splits that are not read, counted, with the first names."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, name: str) -> None:
        """Count a file, or a folder with all that is in it."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(name)

    def __str__(self) -> str:
        """Return the count and the first names; nothing if nothing was left out."""
        names = ", ".join(self.first) + (", ..." if self.count > NAMED else "")
        return f"left out {self.count} files or folders: {names}" if self.count else ""

    def warn(self, label: str) -> None:
        """Say in one line what was left out, if anything was."""
        if self.count:
            log.warning("%s: %s; read: %s", label, self, LAYOUT)


@contextmanager
def opened(path: Path, label: str) -> Iterator[Tree]:
    """List the images of a folder or archive; an archive stays open for reading as long as the context lasts.

    Args:
        path: folder that holds `train/` and `test/` (or `val/`), or a tar file of one, compressed or not.
        label: how messages call it (`dataset.root=...`).

    Raises:
        ValueError: damaged or foreign file, escaping member, missing split or class.
    """
    skipped = Skipped()
    if path.is_dir():
        found = (
            (f"{split}/{group}/{entry.name}", 0, lambda path=entry.path: path)
            for split, group, entry in image_entries(path, label, skipped)
        )
        yield _tree(found, label, skipped)
        return
    with archive(path, label) as tar:
        members = image_members(tar, label, skipped).items()
        yield _tree(((name, member.offset, _reader(tar, member, label)) for name, member in members), label, skipped)


@contextmanager
def archive(path: Path, label: str) -> Iterator[tarfile.TarFile]:
    """Open a tar file whose checksum and end have been verified.

    Raises:
        ValueError: it is not a tar file, or is truncated or damaged.
    """
    try:
        tar = tarfile.open(path, "r:*")  # noqa: SIM115 (closed below, and its errors are told apart from the body's)
    except _DAMAGE as error:
        raise ValueError(
            f"{label}: is not a tar file, or a damaged one ({_line(error)}); expected: {_expected()}"
        ) from None
    with tar:
        try:
            tar.getmembers()
            verify_end(tar)
        except _DAMAGE as error:
            raise ValueError(
                f"{label}: truncated or damaged archive ({_line(error)}); expected: an intact one"
            ) from None
        yield tar


def image_members(tar: tarfile.TarFile, label: str, skipped: Skipped) -> dict[str, tarfile.TarInfo]:
    """Return the images among the members, by `split/class/name`, in the archive's order.

    One folder around the splits (`cifar10/train/...`) is allowed. Hidden files do not count; files of other kinds below
    a split go to `skipped`.

    Raises:
        ValueError: a member points outside, or is a link or device; there are no images; they lie elsewhere.
    """
    members: dict[str, tarfile.TarInfo] = {}
    above: set[str] = set()
    for member in tar.getmembers():
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{label}: member {member.name!r} points outside the archive; expected: {_expected()}")
        if member.isdir() or any(is_hidden(part) for part in path.parts):
            continue
        if not is_image(path.name):
            if {TRAIN, *TEST} & set(path.parts[:-1]):
                skipped.add(member.name)
            continue
        if not member.isreg():
            raise ValueError(f"{label}: member {member.name!r} is a link or device; expected: plain files")
        if len(path.parts) < 3:
            raise ValueError(f"{label}: member {member.name!r} is not in a split and class; expected: {_expected()}")
        above.add("/".join(path.parts[:-3]))
        members["/".join(path.parts[-3:])] = member
    if not members:
        first = next(iter(tar.getnames()), None)
        found = f"{len(tar.getmembers())} members, first {first!r}" if first else "an empty archive"
        raise ValueError(f"{label}: found no JPEG or PNG images ({found}); expected: {_expected()}")
    if len(above) > 1:
        raise ValueError(f"{label}: images lie at different depths ({sorted(above)[:3]}); expected: {_expected()}")
    return members


def _expected() -> str:
    return f"a folder or .tar[.gz] of {LAYOUT}"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")


def verify_end(tar: tarfile.TarFile) -> None:
    """Check a tar file's end, at which tarfile does not look.

    A compressed file carries its checksum behind the last member, and a plain one ends in blocks of zeros. tarfile
    takes a damaged header, or a file that was cut between two members, for the end.
    """
    file = cast(IO[bytes], tar.fileobj)
    if isinstance(file, io.BufferedReader):
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise EOFError("the end-of-archive mark is missing")
    while file.read(1 << 20):
        pass


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo, label: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            file = tar.extractfile(member)
            return file.read() if file else b""
        except _DAMAGE as error:
            raise ValueError(f"{label}: {member.name}: {_line(error)}; expected: an intact archive") from None

    return read


def is_hidden(name: str) -> bool:
    """Return whether a name is that of a hidden file or folder, as `.DS_Store`, `._1.png` or `Thumbs.db`."""
    return name.startswith(".") or name.lower() in NOISE


def is_image(name: str) -> bool:
    """Return whether a name ends like that of a JPEG or PNG file."""
    return name.lower().endswith(SUFFIXES)


def image_entries(root: Path, label: str, skipped: Skipped) -> Iterator[tuple[str, str, os.DirEntry[str]]]:
    """Yield the images of a folder, as (split, class, entry).

    Raises:
        ValueError: an image is not a plain file.
    """
    for split in (TRAIN, *TEST):
        if not (root / split).is_dir():
            continue
        for group in _entries(root / split):
            if not _is_folder(group):
                skipped.add(f"{split}/{group.name}")
                continue
            images = 0
            for entry in _entries(group.path):
                name = f"{split}/{group.name}/{entry.name}"
                if _is_folder(entry) or not is_image(entry.name):
                    skipped.add(f"{name}/" if _is_folder(entry) else name)
                    continue
                # Opening a pipe would wait for ever for somebody to write to it.
                if not _is_file(entry):
                    what = "is not a plain file (a pipe, a device, or a link that leads nowhere)"
                    raise ValueError(f"{label}: {name} {what}; expected: JPEG or PNG files")
                images += 1
                yield split, group.name, entry
            if not images:
                skipped.add(f"{split}/{group.name}/")


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _tree(files: Iterable[_Found], label: str, skipped: Skipped) -> Tree:
    splits: defaultdict[str, defaultdict[str, list[_Found]]] = defaultdict(lambda: defaultdict(list))
    for found in files:
        split, group, _ = found[0].split("/")
        splits[split][group].append(found)
    test, classes = check_splits(splits, label, skipped)
    return Tree(*(_ordered(splits[split], classes) for split in (TRAIN, test)), classes=classes)


def check_splits(splits: Mapping[str, Collection[str]], label: str, skipped: Skipped) -> tuple[str, list[str]]:
    """Return the name of the test split, and the classes in alphabetical order; warn of what was left out.

    Args:
        splits: classes that have images, by split.
        label: how messages call the source.
        skipped: what was left out; a split that is not used is added.

    Raises:
        ValueError: a split is missing, or a class in one of them, or there is one class only.
    """
    test = next((split for split in TEST if split in splits), TEST[0])
    hint = f" ({skipped})" if skipped.count else ""
    for split in (TRAIN, test):
        if split not in splits:
            others = ", ".join(sorted(splits)) or "no images at all"
            raise ValueError(f"{label}: no images of split '{split}' (found: {others}); expected: {LAYOUT}{hint}")
    for split, other in ((test, TRAIN), (TRAIN, test)):
        if missing := sorted(set(splits[other]) - set(splits[split])):
            raise ValueError(
                f"{label}: split '{split}' has no images of class '{missing[0]}', which '{other}' has "
                f"({len(missing)} missing in all); expected: the same classes in both splits{hint}"
            )
    if len(splits[TRAIN]) < 2:
        raise ValueError(f"{label}: has one class only ('{next(iter(splits[TRAIN]))}'); expected: two or more{hint}")
    for split in sorted(set(splits) - {TRAIN, test}):
        skipped.add(f"{split}/")
    skipped.warn(label)
    return test, sorted(splits[TRAIN])


def _ordered(groups: dict[str, list[_Found]], classes: list[str]) -> list[ImageFile]:
    return [
        ImageFile(name, target, position, read)
        for target, group in enumerate(classes)
        for name, position, read in sorted(groups[group], key=lambda found: found[0])
    ]
