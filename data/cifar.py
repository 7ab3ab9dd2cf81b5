"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from torchvision's files or from images sorted into folders.

`root` may be the folder above `cifar-10-batches-py`, as torchvision takes it, that folder itself, the published
`cifar-10-python.tar.gz`, or a folder or `.tar[.gz]` of `split/class/*.jpg|png`. It may also be the folder above such an
archive named `cifar10*.tar[.gz]`, so that one folder holds several data sets. The published files are Python pickles:
torchvision reads them, and only after their md5 is found to be the published one.
"""

import hashlib
import re
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import torch
from torch import Tensor

from data.archive import LAYOUT, archive
from data.augment import PadCrop
from data.base import MOST_WORKERS, Dataset, Split, check_count, check_flag, limited, locate
from data.cache import Tensors, cached, check_cache
from data.download import Published, check_url, fetch
from data.image_folder import image_tensors

PUBLISHER = "https://www.cs.toronto.edu/~kriz"


class _DamagedBatches(ValueError):
    """A published file is missing, truncated or foreign; a download mends it."""


class _CIFAR(Dataset):
    """60,000 photographs of shape (3, 32, 32), 50,000 of them for training.

    Args:
        root: where the files are, see above; None as in `locate`.
        augment: padding-crop (4 pixels, black) and horizontal flip of training batches, as in He et al. (CVPR 2016).
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.
        download: fetches the published archive into `root` if there is nothing to read, or its files are damaged.
        url: where it is fetched from, see `data.download.check_url`; an address implies `download`.
        workers: processes that decode images; None means one per core.
        cache: folder of the decoded images; None as in `data.cache`.

    Raises:
        FileNotFoundError: nothing of the kind at `root`.
        ValueError: wrong option; damaged or foreign file; missing split or class; failed download.
    """

    option: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[str]  # torchvision's class
    batches: ClassVar[str]  # folder of the published files
    published: ClassVar[Published]
    number: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]

    def __init__(
        self,
        *,
        root: str | None = None,
        augment: bool = True,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
        download: bool = False,
        url: str | None = None,
        workers: int | None = None,
        cache: str | None = None,
    ) -> None:
        place, label = locate(root)
        crop = PadCrop(4, flip=True) if check_flag("dataset.augment", augment) else None
        if workers is not None:
            check_count("dataset.workers", workers, most=MOST_WORKERS, none=True)
        fetches = check_flag("dataset.download", download) or check_url(url) is not None
        tensors = self._tensors(place, label, url if fetches else False, workers, check_cache(cache))
        self._check(tensors, label)
        train = limited(tensors["train_inputs"], tensors["train_targets"], limit_train, "dataset.limit_train")
        test = limited(tensors["test_inputs"], tensors["test_targets"], limit_test, "dataset.limit_test")
        super().__init__(
            name=self.option,
            classes=self.number,
            train=Split(*train, mean=self.mean, std=self.std, augment=crop),
            test=Split(*test, mean=self.mean, std=self.std),
            validation=validation,
        )

    def _tensors(
        self, place: Path, label: str, url: str | Literal[False] | None, workers: int | None, cache: Path | None
    ) -> Tensors:
        """Read what is at `place`; an archive that is missing is fetched from `url` first, unless that is False."""
        source = self.source(place)
        if source is None and url is not False and not place.is_file():
            source = fetch(self.published, place, url, PUBLISHER, self.title)
        if source is None:
            found = "does not exist" if not place.exists() else "holds nothing of the kind"
            raise FileNotFoundError(
                f"{label}: {found}; expected: {self.batches}, {self.published.name}, one {self.option}*.tar[.gz], or a "
                f"folder or .tar[.gz] of {LAYOUT} (dataset.download=true fetches the published files)"
            )
        if source.name == self.batches:
            batches = source
            try:
                return cached(batches, {}, lambda: self._published_splits(batches, label), cache)
            except _DamagedBatches:
                if url is False:
                    raise
                source = fetch(self.published, source.parent, url, PUBLISHER, self.title)
        if source.is_file() and source.name == self.published.name:
            label = label if source == place else f"{label}: {source.name}"
            return cached(source, {}, lambda: self._packed(source, label), cache)
        return image_tensors(source, label, channels=3, size=None, workers=workers, cache=cache)

    @classmethod
    def source(cls, place: Path) -> Path | None:
        """Return the file or folder to read at `place`, None if there is nothing of the kind."""
        if place.is_file() or (place.name == cls.batches and place.is_dir()):
            return place
        for name in (cls.batches, cls.published.name):
            if (place / name).exists():
                return place / name
        if (place / "train").is_dir() or (place / "test").is_dir():
            return place
        # Not followed by a digit: "cifar10" is not to find CIFAR-100. Of several none is chosen for the user.
        names = re.compile(rf"{cls.option}(?!\d).*\.tar(\.gz)?")
        found = [path for path in place.glob("*.tar*") if names.fullmatch(path.name)]
        return found[0] if len(found) == 1 else None

    def _packed(self, path: Path, label: str) -> Tensors:
        """Read the published archive: copy its known files to a folder, where torchvision checks and reads them."""
        with archive(path, label) as tar, tempfile.TemporaryDirectory() as folder:
            batches = Path(folder) / self.batches
            batches.mkdir()
            for member in tar.getmembers():
                inside = PurePosixPath(member.name)
                if member.isreg() and inside.parent == PurePosixPath(self.batches) and inside.name != "..":
                    _copy(tar, member, batches / inside.name)
            return self._published_splits(batches, label)

    def _published_splits(self, batches: Path, label: str) -> Tensors:
        from torchvision import datasets  # takes seconds to import

        kind = getattr(datasets, self.kind)
        for name, md5 in [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]:
            if wrong := _wrong(batches / name, md5):
                raise _DamagedBatches(
                    f"{label}: {self.batches}/{name} {wrong}; expected: {self.title}'s published files "
                    "(dataset.download=true fetches them)"
                )
        tensors: Tensors = {}
        for split in ("train", "test"):
            read = kind(str(batches.parent), train=split == "train", download=False)
            tensors[f"{split}_inputs"] = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
            tensors[f"{split}_targets"] = torch.tensor(read.targets)
        return tensors

    def _check(self, tensors: Tensors, label: str) -> None:
        shape = tuple(tensors["train_inputs"].shape[1:])
        if shape != (3, 32, 32):
            raise ValueError(f"{label}: images are {shape[2]}x{shape[1]} pixels; expected: 32x32, as in {self.title}")
        found = _classes(tensors["train_targets"])
        if found != self.number:
            raise ValueError(f"{label}: found {found} classes; expected: {self.number}, as in {self.title}")


def _classes(targets: Tensor) -> int:
    return int(targets.max()) + 1


def _wrong(path: Path, md5: str) -> str:
    """Say what is wrong with a published file, nothing if it is whole."""
    if not path.is_file():
        return "is missing"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return "" if found == md5 else "is truncated or foreign (its md5 differs)"


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    file = tar.extractfile(member)
    if file:
        with path.open("wb") as out:
            shutil.copyfileobj(file, out)


class CIFAR10(_CIFAR):
    """CIFAR-10: ten classes. Options and errors as in the class above."""

    option = "cifar10"
    title = "CIFAR-10"
    kind = "CIFAR10"
    batches = "cifar-10-batches-py"
    published = Published("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")
    number = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)


class CIFAR100(_CIFAR):
    """CIFAR-100: a hundred (fine) classes. Options and errors as in the class above."""

    option = "cifar100"
    title = "CIFAR-100"
    kind = "CIFAR100"
    batches = "cifar-100-python"
    published = Published("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")
    number = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
