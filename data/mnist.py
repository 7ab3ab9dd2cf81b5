"""MNIST (LeCun, Cortes and Burges), from its own idx files, gzip'd as published or unpacked."""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from data.augment import PadCrop
from data.base import Dataset, Split, check_flag, limited, locate
from data.download import Published, check_url, fetch

MEAN, STD = (0.1307,), (0.3081,)
CLASSES = 10
SIZE = (28, 28)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
PUBLISHER = "https://ossci-datasets.s3.amazonaws.com/mnist"
PUBLISHED = (
    Published("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    Published("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
    Published("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
    Published("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
)


class MNIST(Dataset):
    """60,000 training and 10,000 test images of shape (1, 28, 28), 10 classes; mean 0.1307, standard deviation 0.3081.

    Args:
        root: folder that holds `MNIST/raw`, as torchvision takes it, or that folder itself; None as in `locate`.
        augment: padding-crop by two pixels on training batches; no flip, for a mirrored digit is no digit.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.
        download: fetches missing files into `root`.
        url: where they are fetched from, see `data.download.check_url`; an address implies `download`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: wrong option; truncated, damaged or foreign file; failed download.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        augment: bool = False,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
        download: bool = False,
        url: str | None = None,
    ) -> None:
        place, label = locate(root)
        crop = PadCrop(2, flip=False) if check_flag("dataset.augment", augment) else None
        raw = _raw_folder(place)
        mirror = check_url(url)
        if (check_flag("dataset.download", download) or mirror) and not place.is_file():
            raw = raw or place / "MNIST" / "raw"
            for file in PUBLISHED:
                if not any((raw / name).is_file() for name in (file.name, file.name.removesuffix(".gz"))):
                    fetch(file, raw, mirror, PUBLISHER, "MNIST")
        if raw is None:
            found = (
                "is a file"
                if place.is_file()
                else "holds none of MNIST's files"
                if place.exists()
                else "does not exist"
            )
            raise FileNotFoundError(
                f"{label}: {found}; expected: a folder with MNIST/raw/{FILES['train'][0]}.gz and its three fellows "
                "(dataset.download=true fetches them)"
            )
        train, test = (_split(raw, *FILES[split], label) for split in ("train", "test"))
        super().__init__(
            name="mnist",
            classes=CLASSES,
            train=Split(*limited(*train, limit_train, "dataset.limit_train"), mean=MEAN, std=STD, augment=crop),
            test=Split(*limited(*test, limit_test, "dataset.limit_test"), mean=MEAN, std=STD),
            validation=validation,
        )


def _raw_folder(place: Path) -> Path | None:
    """Return the folder that the files lie in, or None; one of the four is enough to tell."""
    names = [name + suffix for files in FILES.values() for name in files for suffix in ("", ".gz")]
    folders = (place / "MNIST" / "raw", place / "raw", place)
    return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)


def _split(raw: Path, images: str, labels: str, label: str) -> tuple[Tensor, Tensor]:
    inputs = _idx(raw, images, (*SIZE,), label)
    targets = _idx(raw, labels, (), label).to(torch.int64)
    if len(inputs) != len(targets) or not len(targets):
        raise ValueError(
            f"{label}: {images} holds {len(inputs)} images and {labels} {len(targets)} labels; "
            "expected: the same number of both"
        )
    if int(targets.max()) >= CLASSES:
        raise ValueError(f"{label}: {labels} holds label {int(targets.max())}; expected: labels 0 to {CLASSES - 1}")
    return inputs[:, None] if inputs.dim() == 3 else inputs, targets


def _idx(raw: Path, name: str, item: tuple[int, ...], label: str) -> Tensor:
    """Read a file of unsigned bytes: two zeros, type 8, number of dimensions, sizes (big-endian int32), the data."""
    packed, plain = raw / f"{name}.gz", raw / name
    path = packed if packed.is_file() else plain
    if not path.is_file():
        raise FileNotFoundError(f"{label}: {packed} is missing; expected: MNIST's four files (dataset.download=true)")
    try:
        content = bytearray(gzip.decompress(path.read_bytes()) if path is packed else path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{label}: {path} is truncated or damaged ({error}); expected: MNIST's own file") from None
    dimensions = 1 + len(item)
    header = 4 + 4 * dimensions
    expected = f"{dimensions}-dimensional unsigned bytes" + (f" of {item[0]}x{item[1]} pixels" if item else "")
    if len(content) < header:
        raise ValueError(f"{label}: {path} holds {len(content)} bytes; expected: an idx file of {expected}")
    if bytes(content[:4]) != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{label}: {path} starts with {bytes(content[:4]).hex()}; expected: an idx file of {expected}")
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if tuple(sizes[1:]) != item:
        raise ValueError(f"{label}: {path} holds items of shape {tuple(sizes[1:])}; expected: {expected}")
    if len(content) - header != math.prod(sizes):
        raise ValueError(
            f"{label}: {path} holds {len(content) - header} bytes of data; "
            f"expected: {math.prod(sizes)}, as its header says"
        )
    if not math.prod(sizes):
        raise ValueError(f"{label}: {path} holds no samples; expected: {expected}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(sizes)
