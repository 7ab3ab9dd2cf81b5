"""ImageNet (Russakovsky et al. 2015), or any images in its layout, streamed: decoded as they are used.

`root` is the standard folder, `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, or a tar file of it (not compressed, for
images are read at random places). Transforms are torchvision's, see `data.crops`. Unlike there, photographs are turned
as their EXIF orientation says, and transparent pixels lie on white.
"""

import copy
import hashlib
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
import torch
from torch import Tensor

from data.archive import TEST, TRAIN, Skipped, check_splits, image_entries, is_hidden, is_image, verify_end
from data.base import MOST_WORKERS, check_count, check_flag, limited, locate
from data.crops import Place
from data.image_folder import IMAGENET
from data.streamed import Decoders, StreamedSplit
from data.validation import divided

LAYOUT = "train/<class>/*.JPEG and val/<class>/*.JPEG"

_Found = tuple[str, int, int]  # split/class/name, where it starts, its length


class ImageNet:
    """Images of any size, cut to squares of 224 pixels; 1,281,167 for training, 50,000 for testing, 1000 classes.

    Samples are ordered by class and name. What is wrong with an image shows when it is used.

    Args:
        root: folder or plain tar file, see above; None as in `data.base.locate`.
        size: pixels of the square images; for evaluation the shorter side is resized to 256/224 of it first.
        augment: random resized crop and horizontal flip of training batches; False cuts the middle square there too.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.
        workers: processes that decode; None means one per core, 0 decodes in the process that asks.

    Attributes:
        name: "imagenet".
        shape: (3, size, size).
        classes: number of folders of `train`.
        train: training split, without the validation samples.
        validation: validation split, None if none was asked for.
        test: test split, the folder `val` (or `test`).
        fingerprint: sha256 (hex) of the names, lengths and targets of the files in use, of `size`, and of the names of
            the validation samples.
        top5: evaluations report the error among the first five guesses too.

    Raises:
        FileNotFoundError: `root` does not exist.
        ValueError: wrong option; compressed, damaged or foreign file; missing split or class.
    """

    top5 = True

    def __init__(
        self,
        *,
        root: str | None = None,
        size: int = 224,
        augment: bool = True,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
        workers: int | None = None,
    ) -> None:
        place, label = locate(root)
        check_count("dataset.size", size, least=8)
        check_flag("dataset.augment", augment)
        if workers is None:
            workers = len(os.sched_getaffinity(0))
        decoders = Decoders(check_count("dataset.workers", workers, least=0, most=MOST_WORKERS, none=True))
        if not place.exists():
            raise FileNotFoundError(f"{label}: no such file or folder; expected: a folder or .tar of {LAYOUT}")
        groups: defaultdict[str, defaultdict[str, list[_Found]]] = defaultdict(lambda: defaultdict(list))
        skipped = Skipped()
        for found in _in_folder(place, label, skipped) if place.is_dir() else _in_tar(place, label, skipped):
            split, group, _ = found[0].split("/")
            groups[split][group].append(found)
        test, classes = check_splits(groups, label, skipped)
        self.name = "imagenet"
        self.shape = (3, size, size)
        self.classes = len(classes)
        digest = hashlib.sha256(f"{self.classes} {size}".encode())
        splits = []
        for split, limit, key in ((TRAIN, limit_train, "limit_train"), (test, limit_test, "limit_test")):
            targets = torch.repeat_interleave(torch.tensor([len(groups[split][group]) for group in classes]))
            files = [found for group in classes for found in sorted(groups[split].pop(group))]
            chosen, targets = limited(torch.arange(len(files)), targets, limit, f"dataset.{key}")
            places = Files(place, [files[number] for number in chosen.tolist()])
            digest.update(places.names.tobytes() + places.lengths.tobytes() + targets.numpy().tobytes())
            splits.append(
                StreamedSplit(
                    places,
                    targets,
                    decoders=decoders,
                    size=size,
                    mean=IMAGENET[3][0],
                    std=IMAGENET[3][1],
                    augment=augment and split == TRAIN,
                    label=label,
                )
            )
        train, self.test = splits
        self.train, self.validation = divided(train, validation)
        if self.validation is not None:
            digest.update(self.validation.places.names.tobytes())
        self.fingerprint = digest.hexdigest()

    def to(self, device: torch.device | str) -> None:
        """Make batches of all splits on `device` from now on."""
        for split in (self.train, self.test, self.validation):
            if split is not None:
                split.to(device)


class Files:
    """Where the images of a split lie, in arrays: a million Python objects would take ten times the memory.

    Args:
        source: the folder, or the tar file.
        found: (split/class/name, where it starts in the tar file, its length) of each.
    """

    def __init__(self, source: Path, found: list[_Found]) -> None:
        self.source = str(source)
        self.tar = not source.is_dir()
        self.names = np.array([os.fsencode(name) for name, _, _ in found], dtype=np.bytes_)
        self.starts = np.array([start for _, start, _ in found], dtype=np.int64)
        self.lengths = np.array([length for _, _, length in found], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, ids: Tensor) -> Self:
        """Return the places of the images numbered `ids` [n], in this order."""
        part = copy.copy(self)
        chosen = ids.numpy()
        part.names, part.starts, part.lengths = self.names[chosen], self.starts[chosen], self.lengths[chosen]
        return part

    def __getitem__(self, number: int) -> Place:
        name = os.fsdecode(self.names[number])
        if self.tar:
            return name, self.source, int(self.starts[number]), int(self.lengths[number])
        return name, os.path.join(self.source, name), 0, -1


def _in_folder(root: Path, label: str, skipped: Skipped) -> Iterator[_Found]:
    for split, group, entry in image_entries(root, label, skipped):
        yield f"{split}/{group}/{entry.name}", 0, entry.stat().st_size


def _in_tar(path: Path, label: str, skipped: Skipped) -> Iterator[_Found]:
    """List the images of a tar file; one folder around the splits is allowed."""
    expected = f"expected: a folder or plain .tar of {LAYOUT}"
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115 (closed below, and its errors are told apart from a damaged one's)
    except (tarfile.TarError, OSError):
        what = "is compressed" if tarfile.is_tarfile(path) else "is not a tar file"
        raise ValueError(f"{label}: {what}; {expected}") from None
    with tar:
        try:
            while (member := tar.next()) is not None:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue] (tarfile would keep a kilobyte for each)
                inside = PurePosixPath(member.name)
                if member.isdir() or any(is_hidden(part) for part in inside.parts):
                    continue
                if member.isreg() and len(inside.parts) >= 3 and is_image(inside.name):
                    yield "/".join(inside.parts[-3:]), member.offset_data, member.size
                elif {TRAIN, *TEST} & set(inside.parts[:-1]):
                    skipped.add(member.name)
            verify_end(tar)
        except (tarfile.TarError, EOFError, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{label}: truncated or damaged archive ({first}); {expected}") from None
