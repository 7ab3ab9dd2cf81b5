"""What a dataset is to the rest of the project: two splits of samples held on one device, answering `batch(ids)`.

Samples are kept as decoded (uint8 images, or float32 vectors), and normalised when a batch is cut, on their device.
"""

import copy
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from data.validation import divided

DEFAULT_ROOT = "data-sets"
MOST_SAMPLES = 2**40
"""No more samples, features or classes can be asked for, whatever the memory."""
MOST_WORKERS = 1024
"""No more processes can be asked for."""


class Augmentation(Protocol):
    """A random change of a batch of images, which is a pure function of (seed, epoch, sample id).

    The epoch is a 0-d int64 tensor on the images' device where the training step is captured as a CUDA graph: a number
    would stay there as it was when the step was captured.
    """

    def __call__(self, images: Tensor, ids: Tensor, *, seed: int, epoch: int | Tensor) -> Tensor:
        """Return changed copies of `images` [B, channels, height, width], the samples numbered `ids` [B]."""
        ...


class Split:
    """Samples of one split: `inputs` [n, *shape] and `targets` [n], on one device.

    Args:
        inputs: uint8 images [n, channels, height, width], float32 samples of any shape, or int64 token numbers [n, T],
            which batches have as they are.
        targets: class numbers [n], int64; or numbers to regress on, float32; or the next tokens [n, T], int64.
        mean: per channel, on the scale where `white` is 1; None leaves the values as they are.
        std: per channel, as `mean`.
        white: raw value that counts as 1 (255 for bytes, 16 for scikit-learn's digits).
        augment: applied to the raw images of batches that are drawn with a seed.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        white: float = 255.0,
        augment: Augmentation | None = None,
    ) -> None:
        if len(inputs) != len(targets):
            raise ValueError(
                f"dataset: {len(inputs)} inputs and {len(targets)} targets; allowed: the same number of both"
            )
        self.inputs = inputs.contiguous()
        self.targets = targets.to(torch.float32 if targets.is_floating_point() else torch.int64)
        self.augment = augment
        self._shift: Tensor | None = None
        self._scale: Tensor | None = None
        if mean is not None and std is not None:
            per_channel = (-1,) + (1,) * (inputs.dim() - 2)
            self._shift = (torch.tensor(mean, dtype=torch.float64) * white).float().view(per_channel)
            self._scale = (1 / (torch.tensor(std, dtype=torch.float64) * white)).float().view(per_channel)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def device(self) -> torch.device:
        """The device that holds the samples, and on which batches are made."""
        return self.inputs.device

    @property
    def nbytes(self) -> int:
        """Memory of inputs and targets, in bytes."""
        return self.inputs.nbytes + self.targets.nbytes

    def batch(self, ids: Tensor, *, seed: int | None = None, epoch: int | Tensor = 0) -> tuple[Tensor, Tensor]:
        """Return a batch, without the host waiting for the device.

        Args:
            ids: sample numbers [B], int64, on any device.
            seed: None leaves the samples as they are (evaluation); a number augments them, where the dataset does so,
                as a pure function of (seed, epoch, sample id): a sample looks the same in any batch, on any device.
            epoch: which pass over the data this is, counted from 0; a number, or a 0-d int64 tensor on that device.

        Returns:
            Normalised float32 inputs [B, *shape], or int64 tokens, and targets [B] or [B, T], on the split's device.
        """
        if ids.device != self.inputs.device:
            ids = ids.to(self.inputs.device, non_blocking=True)
        inputs = self.inputs.index_select(0, ids)
        if seed is not None and self.augment is not None:
            inputs = self.augment(inputs, ids, seed=seed, epoch=epoch)
        if inputs.dtype not in (torch.float32, torch.int64):
            inputs = inputs.to(torch.float32)
        # Always a fresh tensor here, so that it may be worked on in place.
        if self._shift is not None and self._scale is not None:
            inputs.sub_(self._shift).mul_(self._scale)
        return inputs, self.targets.index_select(0, ids)

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch as the rows of a matrix (B, d), and its targets.

        Of float32 samples in CPU memory by NumPy: a message of a dual method has some hundred, and PyTorch's operators
        take three times as long on so few.
        """
        if not (self.inputs.is_cpu and ids.is_cpu and self.inputs.dtype == torch.float32 and self._shift is None):
            inputs, targets = self.batch(ids)
        else:
            numbers = ids.numpy()
            inputs = torch.from_numpy(self.inputs.numpy().take(numbers, 0))
            targets = torch.from_numpy(self.targets.numpy().take(numbers))
        return inputs if inputs.dim() == 2 else inputs.flatten(1), targets

    def subset(self, ids: Tensor, *, augment: bool) -> Self:
        """Return a split of copies of the samples numbered `ids` [n]; not augmented unless `augment`."""
        part = copy.copy(self)
        part.inputs, part.targets = self.inputs.index_select(0, ids), self.targets.index_select(0, ids)
        part.augment = self.augment if augment else None
        return part

    def to(self, device: torch.device | str) -> None:
        """Move the samples to `device`, in place."""
        self.inputs = self.inputs.to(device)
        self.targets = self.targets.to(device)
        if self._shift is not None and self._scale is not None:
            self._shift, self._scale = self._shift.to(device), self._scale.to(device)


class Dataset:
    """A training and a test split, with what a model must know to fit them.

    Args:
        name: see below.
        classes: see below.
        train: training samples, after any limit.
        test: test split.
        validation: which part of the training samples is the validation split, see `data.validation.divided`.

    Attributes:
        name: the config option's name (`cifar10`).
        shape: shape of one sample, as (channels, height, width).
        classes: number of classes; 0 if the targets are numbers to regress on.
        train: training split, without the validation samples.
        validation: validation split, None if none was asked for.
        test: test split.
        top5: whether evaluations report the error among the first five guesses too.
        tokens: whether samples are windows of token numbers [T] with the next tokens as targets; evaluations report the
            perplexity too.
        fingerprint: sha256 (hex) of the decoded samples and targets in use, in their order, after any limit.
    """

    top5 = False
    tokens = False

    def __init__(self, *, name: str, classes: int, train: Split, test: Split, validation: object = None) -> None:
        self.name = name
        self.shape = tuple(train.inputs.shape[1:])
        self.classes = classes
        self.train, self.validation = divided(train, validation)
        self.test = test
        digest = hashlib.sha256(f"{classes}".encode())
        for split in self.splits:
            for tensor in (split.inputs, split.targets):
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.numpy().data)
        self.fingerprint = digest.hexdigest()

    @property
    def splits(self) -> tuple[Split, ...]:
        """The training and the test split, and the validation split if there is one."""
        # It comes last: without one the fingerprint is what it was before there were any.
        return (self.train, self.test, *([] if self.validation is None else [self.validation]))

    def to(self, device: torch.device | str) -> None:
        """Move all splits to `device`, in place."""
        for split in self.splits:
            split.to(device)


def limited(inputs: Tensor, targets: Tensor, limit: object, key: str) -> tuple[Tensor, Tensor]:
    """Return the first `limit` samples, taken in turn from each class, in the order of the data.

    Targets that are numbers have no classes: of them the first samples are taken as they come.

    Classes that have enough samples differ in their counts by at most one. The choice depends on the order of the data
    alone, never on a seed.

    Raises:
        ValueError: `limit` is not a whole number between 1 and the number of samples, nor None.
    """
    if limit is None:
        return inputs, targets
    count = check_count(key, limit, most=len(targets), none=True)
    if targets.is_floating_point():
        return inputs[:count], targets[:count]
    order = torch.argsort(targets, stable=True)
    counts = torch.bincount(targets)
    starts = torch.cumsum(counts, 0) - counts
    turn = torch.empty_like(targets)  # a sample's place among those of its class
    turn[order] = torch.arange(len(targets)) - starts[targets[order]]
    chosen = torch.argsort(turn * len(counts) + targets)[:count].sort().values
    return inputs[chosen], targets[chosen]


def check_count(key: str, value: object, *, least: int = 1, most: int | None = None, none: bool = False) -> int:
    """Return `value` as an int.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most):
        return value
    allowed = f"whole numbers from {least}" if most is None else f"whole numbers from {least} to {most}"
    raise ValueError(f"{key}={value}: is not allowed; allowed: {allowed}{', or null' if none else ''}")


def check_flag(key: str, value: object) -> bool:
    """Return `value` as a bool.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{key}={value}: is neither true nor false; allowed: true, false")


def locate(root: object) -> tuple[Path, str]:
    """Return where `dataset.root` points, and how to call it in messages.

    None means the folder that the environment variable DCRUN_DATA names, else `data-sets` in the current folder.

    Raises:
        ValueError: it is not a path, or begins with the `~` of nobody.
    """
    if root is None:
        place = os.environ.get("DCRUN_DATA") or DEFAULT_ROOT
        label = f"dataset.root=null (here {place})"
    elif isinstance(root, str | os.PathLike) and str(root) and "\0" not in str(root):
        place, label = root, f"dataset.root={root}"
    else:
        raise ValueError(f"dataset.root={root!r}: is not a path; allowed: a folder or file, or null")
    return home_expanded(Path(place), label), label


def home_expanded(path: Path, label: str) -> Path:
    """Replace a leading `~`.

    Raises:
        ValueError: nobody knows whose home that is.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{label}: the home folder behind ~ is not known; allowed: a path without ~") from None
