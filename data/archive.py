"""Images in a folder `split/class/*.jpg|png`, or in a `.tar[.gz]` of one, listed in a fixed order and read one by one.

Nothing of an archive is ever written to disk: members are read by name, and one that points outside, a link or a device
makes the archive refused.
"""

import gzip
import io
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

SUFFIXES = (".jpg", ".jpeg", ".png")
TRAIN = "train"
TEST = ("test", "val")  # `val` counts where there is no `test`, as in ImageNet's layout
LAYOUT = "train/<class>/*.jpg|png and test/<class>/*.jpg|png"
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


@contextmanager
def opened(path: Path, label: str) -> Iterator[Tree]:
    """List the images of a folder or archive; an archive stays open for reading as long as the context lasts.

    Args:
        path: folder that holds `train/` and `test/` (or `val/`), or a tar file of one, compressed or not.
        label: how messages call it (`dataset.root=...`).

    Raises:
        ValueError: damaged or foreign file, escaping member, missing split or class.
    """
    if path.is_dir():
        yield _tree(_listed(path), label)
        return
    with archive(path, label) as tar:
        members = image_members(tar, label).items()
        yield _tree(((name, member.offset, _reader(tar, member, label)) for name, member in members), label)


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


def image_members(tar: tarfile.TarFile, label: str) -> dict[str, tarfile.TarInfo]:
    """Return the images among the members, by `split/class/name`, in the archive's order.

    One folder around the splits (`cifar10/train/...`) is allowed. Hidden files and files of other kinds do not count.

    Raises:
        ValueError: a member points outside, or is a link or device; there are no images; they lie elsewhere.
    """
    members: dict[str, tarfile.TarInfo] = {}
    above: set[str] = set()
    for member in tar.getmembers():
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{label}: member {member.name!r} points outside the archive; expected: {_expected()}")
        if member.isdir() or path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
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


def _listed(root: Path) -> Iterator[_Found]:
    for split in (TRAIN, *TEST):
        for folder in sorted(root.glob(f"{split}/*/")):
            if not folder.name.startswith("."):
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                            yield f"{split}/{folder.name}/{entry.name}", 0, lambda path=entry.path: path


def _tree(files: Iterable[_Found], label: str) -> Tree:
    splits: defaultdict[str, defaultdict[str, list[_Found]]] = defaultdict(lambda: defaultdict(list))
    for found in files:
        split, group, _ = found[0].split("/")
        splits[split][group].append(found)
    test, classes = check_splits(splits, label)
    return Tree(*(_ordered(splits[split], classes) for split in (TRAIN, test)), classes=classes)


def check_splits(splits: Mapping[str, Collection[str]], label: str) -> tuple[str, list[str]]:
    """Return the name of the test split, and the classes in alphabetical order.

    Args:
        splits: classes that have images, by split.
        label: how messages call the source.

    Raises:
        ValueError: a split is missing, or a class in one of them.
    """
    test = next((split for split in TEST if split in splits), TEST[0])
    for split in (TRAIN, test):
        if split not in splits:
            others = ", ".join(sorted(splits)) or "no images at all"
            raise ValueError(f"{label}: no images of split '{split}' (found: {others}); expected: {LAYOUT}")
    for split, other in ((test, TRAIN), (TRAIN, test)):
        if missing := sorted(set(splits[other]) - set(splits[split])):
            raise ValueError(
                f"{label}: split '{split}' has no images of class '{missing[0]}', which '{other}' has "
                f"({len(missing)} missing in all); expected: the same classes in both splits"
            )
    return test, sorted(splits[TRAIN])


def _ordered(groups: dict[str, list[_Found]], classes: list[str]) -> list[ImageFile]:
    return [
        ImageFile(name, target, position, read)
        for target, group in enumerate(classes)
        for name, position, read in sorted(groups[group], key=lambda found: found[0])
    ]
