"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from torchvision's files or from images sorted into folders.

`root` may be the folder above `cifar-10-batches-py`, as torchvision takes it, that folder itself, the published
`cifar-10-python.tar.gz`, or a folder or `.tar[.gz]` of `split/class/*.jpg|png`. The published files are Python pickles:
torchvision reads them, and only after their md5 is found to be the published one.
"""

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch
from torch import Tensor

from data.archive import LAYOUT, archive
from data.augment import PadCrop
from data.base import Dataset, Split, check_count, check_flag, limited, locate
from data.cache import Tensors, cached
from data.image_folder import image_tensors


class _CIFAR(Dataset):
    """60,000 photographs of shape (3, 32, 32), 50,000 of them for training.

    Args:
        root: where the files are, see above; None as in `locate`.
        augment: padding-crop (4 pixels, black) and horizontal flip of training batches, as in He et al. (CVPR 2016).
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        download: fetches the published files into `root` if they are missing (by torchvision).
        workers: processes that decode images; None means one per core.

    Raises:
        FileNotFoundError: nothing of the kind at `root`.
        ValueError: wrong option; damaged or foreign file; missing split or class; failed download.
    """

    option: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[str]  # torchvision's class
    batches: ClassVar[str]  # folder of the published files
    published: ClassVar[str]
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
        download: bool = False,
        workers: int | None = None,
    ) -> None:
        place, label = locate(root)
        crop = PadCrop(4, flip=True) if check_flag("dataset.augment", augment) else None
        if workers is not None:
            check_count("dataset.workers", workers, none=True)
        tensors = self._tensors(place, label, check_flag("dataset.download", download), workers)
        self._check(tensors, label)
        train = limited(tensors["train_inputs"], tensors["train_targets"], limit_train, "dataset.limit_train")
        test = limited(tensors["test_inputs"], tensors["test_targets"], limit_test, "dataset.limit_test")
        super().__init__(
            name=self.option,
            classes=self.number,
            train=Split(*train, mean=self.mean, std=self.std, augment=crop),
            test=Split(*test, mean=self.mean, std=self.std),
        )

    def _tensors(self, place: Path, label: str, download: bool, workers: int | None) -> Tensors:
        source = self._source(place)
        if source is None and download:
            self._published_splits(place, label, download=True)
            source = self._source(place)
        if source is None:
            found = "does not exist" if not place.exists() else "holds nothing of the kind"
            raise FileNotFoundError(
                f"{label}: {found}; expected: {self.batches}, {self.published}, or a folder or .tar[.gz] of {LAYOUT} "
                "(dataset.download=true fetches the published files)"
            )
        if source.name == self.batches:
            return cached(source, {}, lambda: self._published_splits(source.parent, label, download=download))
        if source.is_file() and source.name == self.published:
            return cached(source, {}, lambda: self._packed(source, label))
        return image_tensors(source, label, channels=3, size=None, workers=workers)

    def _source(self, place: Path) -> Path | None:
        """Return the file or folder to read at `place`."""
        if place.is_file() or (place.name == self.batches and place.is_dir()):
            return place
        for name in (self.batches, self.published):
            if (place / name).exists():
                return place / name
        return place if (place / "train").is_dir() or (place / "test").is_dir() else None

    def _packed(self, path: Path, label: str) -> Tensors:
        """Read the published archive: copy its known files to a folder, where torchvision checks and reads them."""
        with archive(path, label) as tar, tempfile.TemporaryDirectory() as folder:
            (Path(folder) / self.batches).mkdir()
            for member in tar.getmembers():
                inside = PurePosixPath(member.name)
                if member.isreg() and inside.parent == PurePosixPath(self.batches) and inside.name != "..":
                    _copy(tar, member, Path(folder) / self.batches / inside.name)
            return self._published_splits(Path(folder), label, download=False)

    def _published_splits(self, folder: Path, label: str, *, download: bool) -> Tensors:
        from torchvision import datasets  # takes seconds to import

        tensors: Tensors = {}
        for split in ("train", "test"):
            try:
                read = getattr(datasets, self.kind)(str(folder), train=split == "train", download=download)
            except (OSError, RuntimeError) as error:
                problem = (str(error).splitlines() or [type(error).__name__])[0]
                if download:
                    message = f"dataset.download=true: could not fetch {self.title} into {folder}: {problem}"
                    raise ValueError(message) from None
                raise ValueError(
                    f"{label}: {self.batches} lacks a file, or one is truncated or foreign (its md5 differs); "
                    f"expected: {self.title}'s published files (dataset.download=true fetches them)"
                ) from None
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
    published = "cifar-10-python.tar.gz"
    number = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)


class CIFAR100(_CIFAR):
    """CIFAR-100: a hundred (fine) classes. Options and errors as in the class above."""

    option = "cifar100"
    title = "CIFAR-100"
    kind = "CIFAR100"
    batches = "cifar-100-python"
    published = "cifar-100-python.tar.gz"
    number = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
