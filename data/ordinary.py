"""Ordinary map-style datasets of PyTorch, one for training and one for tests: `dataset=own`."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from data.augment import hashed
from data.base import Dataset, Split, check_count, check_flag, limited
from data.validation import divided

READ_TWICE = 8
"""Samples that are read twice, to find out whether they change."""
_MASK = 2**32 - 1  # NumPy takes no larger seed


class MapStyle(Dataset):
    """Two map-style datasets whose samples are pairs of an input and a target.

    Inputs are tensors or arrays of one shape, and reach the model as float32; bytes (uint8) are divided by 255, as
    torchvision's `ToTensor` does. Targets are class numbers from 0, or floats to regress on. Every sample is read when
    a run begins. What is drawn from `random`, NumPy or PyTorch for a sample is a function of (seed, epoch, sample).

    Args:
        train: training samples.
        test: test samples; None for none.
        classes: number of classes; None for one more than the largest number in the training set.
        in_memory: keep all samples as they were read. False reads each of them anew whenever it is used, so that a
            random transform is another one in each epoch.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`. Its samples go through the training set's
            transform, with the same random numbers each time.

    Raises:
        ValueError: wrong option, or samples that are nothing of the kind; the message names the first.
    """

    def __init__(
        self,
        *,
        train: TorchDataset,
        test: TorchDataset | None = None,
        classes: int | None = None,
        in_memory: bool = True,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
    ) -> None:
        keep = check_flag("dataset.in_memory", in_memory)
        digest = hashlib.sha256()
        read = _InMemory if keep else _AsUsed
        own = read(train, "dataset.train", limit_train, digest.update)
        other = own.none() if test is None else read(test, "dataset.test", limit_test, digest.update)
        self.name = type(train).__name__
        self.shape = own.shape
        if other.shape != own.shape:
            wrong = f"its samples have shape {other.shape}, and those of dataset.train {own.shape}"
            raise ValueError(f"dataset.test: {wrong}; allowed: samples of the same shape")
        self.classes = _classes(own.targets, other.targets, classes)
        self.train, self.validation = divided(own.split(), validation)
        self.test = other.split()
        digest.update(f"{self.classes} {[len(split) for split in self.splits]}".encode())
        self.fingerprint = digest.hexdigest()


class ReadSplit:
    """Samples of one split that are read whenever they are used; answers as `data.base.Split` does.

    Args:
        dataset: see `MapStyle`.
        ids: numbers of the split's samples in the dataset, [n] int64.
        targets: [n], int64 or float32.
    """

    augment = None

    def __init__(self, dataset: Any, ids: Tensor, targets: Tensor) -> None:
        self.dataset, self.ids, self.targets = dataset, ids, targets

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def device(self) -> torch.device:
        """The device on which batches are made."""
        return self.targets.device

    @property
    def nbytes(self) -> int:
        """Memory of the targets; samples are not held."""
        return self.targets.nbytes

    def expect(self, ids: Tensor, *, seed: int | None = None, epoch: int = 0) -> None:
        """Do nothing: samples are not read ahead. Who has this method reads on the CPU when a batch is asked for."""

    def batch(self, ids: Tensor, *, seed: int | None = None, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Return float32 inputs [B, *shape] and targets [B] of the samples numbered `ids` [B]; see `data.base.Split`.

        Without a seed a random transform draws the same for a sample each time.
        """
        chosen = self.ids[ids.to(self.ids.device)]
        inputs = torch.stack([sample for sample, _ in _read(self.dataset, "dataset", chosen, seed or 0, epoch)])
        scaled = inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs
        return scaled.to(self.device), self.targets[ids.to(self.device)]

    def subset(self, ids: Tensor, *, augment: bool) -> Self:
        """Return a split of the samples numbered `ids` [n]; their transform is the same, whatever `augment` says."""
        part = copy(self)
        part.ids, part.targets = self.ids[ids], self.targets[ids]
        return part

    def to(self, device: torch.device | str) -> None:
        """Make batches on `device` from now on."""
        self.targets = self.targets.to(device)


class _InMemory:
    """What was read of a dataset: its samples and targets, after the limit."""

    def __init__(self, dataset: Any, key: str, limit: int | None, update: Callable[[Any], object]) -> None:
        pairs = list(_read_all(dataset, key, update))
        inputs = torch.stack([sample for sample, _ in pairs])
        for number, (sample, _) in enumerate(_read(dataset, key, torch.arange(min(READ_TWICE, len(pairs))), 1, 1)):
            if not torch.equal(sample, inputs[number]):
                wrong = f"sample {number} of {key} is another one whenever it is read, as with a random transform"
                raise ValueError(f"dataset.in_memory=true: {wrong}; allowed: false, which reads it anew in each epoch")
        self.inputs, self.targets = limited(inputs, _stacked(key, pairs), limit, _limit_key(key))
        self.shape = tuple(self.inputs.shape[1:])

    def none(self) -> "_InMemory":
        """Return no samples, of the same shape."""
        part = copy(self)
        part.inputs, part.targets = self.inputs[:0], self.targets[:0]
        return part

    def split(self) -> Split:
        """Return the samples as a split."""
        if self.inputs.dtype != torch.uint8:
            return Split(self.inputs, self.targets)
        return Split(self.inputs, self.targets, mean=[0.0], std=[1.0])


class _AsUsed:
    """What is known of a dataset whose samples are not kept: targets and shape."""

    def __init__(self, dataset: Any, key: str, limit: int | None, update: Callable[[Any], object]) -> None:
        pairs = [(sample[:0].clone(), target) for sample, target in _read_all(dataset, key, update)]
        targets = _stacked(key, pairs)
        self.dataset = dataset
        self.ids, self.targets = limited(torch.arange(len(targets)), targets, limit, _limit_key(key))
        self.shape = tuple(next(_read(dataset, key, torch.zeros(1, dtype=torch.int64), 0, 0))[0].shape)

    def none(self) -> "_AsUsed":
        """Return no samples, of the same shape."""
        part = copy(self)
        part.ids, part.targets = self.ids[:0], self.targets[:0]
        return part

    def split(self) -> ReadSplit:
        """Return the samples as a split."""
        return ReadSplit(self.dataset, self.ids, self.targets)


def _read_all(dataset: Any, key: str, update: Callable[[Any], object]) -> Iterator[tuple[Tensor, Tensor]]:
    """Read all samples of a dataset, and tell `update` their bytes."""
    maps = hasattr(type(dataset), "__getitem__") and hasattr(type(dataset), "__len__")
    if not maps or type(dataset).__getitem__ is TorchDataset.__getitem__:
        wrong = f"a {type(dataset).__name__} has no samples by number"
        raise ValueError(f"{key}: {wrong}; allowed: map-style datasets, with __len__ and __getitem__")
    if not len(dataset):
        raise ValueError(f"{key}: has no samples; allowed: one or more, or dataset.test=null")
    shape: torch.Size | None = None
    for number, (sample, target) in enumerate(_read(dataset, key, torch.arange(len(dataset)), 0, 0)):
        shape = sample.shape if shape is None else shape
        if sample.shape != shape:
            wrong = f"sample {number} has shape {tuple(sample.shape)}, and sample 0 {tuple(shape)}"
            raise ValueError(f"{key}: {wrong}; allowed: samples of one shape")
        if not (sample.isfinite().all() and target.isfinite()):
            wrong = f"sample {number} has values that are infinite or NaN"
            raise ValueError(f"{key}: {wrong}; allowed: finite inputs and targets")
        update(sample.numpy().tobytes())
        update(target.numpy().tobytes())
        yield sample, target


def _read(dataset: Any, key: str, ids: Tensor, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the samples numbered `ids` [n] as tensors; each draws its own random numbers."""
    with _draws_apart():
        for number, bits in zip(ids.tolist(), hashed(ids, seed=seed, epoch=epoch).tolist(), strict=True):
            random.seed(bits)
            np.random.seed(bits & _MASK)  # noqa: NPY002 (what transforms draw from)
            torch.manual_seed(bits)
            try:
                item = dataset[number]
            except (OSError, ValueError) as error:
                wrong = f"sample {number} cannot be read ({type(error).__name__}: {error})"
                raise ValueError(f"{key}: {wrong}; allowed: datasets that give a sample for every number") from error
            yield _pair(item, f"{key}: sample {number}")


@contextmanager
def _draws_apart() -> Iterator[None]:
    """Leave the process's random generators as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def _pair(item: Any, label: str) -> tuple[Tensor, Tensor]:
    """Return input and target of a sample, on the CPU: bytes or float32; int64 or float32."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(f"{label} is a {type(item).__name__}; allowed: pairs of an input and a target")
    try:
        sample, target = (torch.as_tensor(part).detach().cpu() for part in item)
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = f"{type(item[0]).__name__} and {type(item[1]).__name__}"
        allowed = "tensors, arrays and numbers, as with transform=torchvision.transforms.ToTensor()"
        raise ValueError(f"{label} is a pair of {kinds}; allowed: {allowed}") from error
    if sample.dim() == 0 or sample.is_complex():
        raise ValueError(
            f"{label} has an input of shape () or of complex numbers; allowed: real numbers, a list or more"
        )
    if target.numel() != 1 or target.is_complex():
        raise ValueError(f"{label} has a target of shape {tuple(target.shape)}; allowed: a class number, or a number")
    sample = sample if sample.dtype == torch.uint8 else sample.float()
    return sample, target.reshape(()).to(torch.float32 if target.is_floating_point() else torch.int64)


def _stacked(key: str, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the targets as one tensor."""
    targets = [target for _, target in pairs]
    if len({target.dtype for target in targets}) > 1:
        raise ValueError(f"{key}: some targets are whole numbers and some are not; allowed: all of one kind")
    return torch.stack(targets)


def _classes(train: Tensor, test: Tensor, asked: object) -> int:
    """Return the number of classes, 0 if targets are numbers."""
    if train.is_floating_point() or (len(test) and test.is_floating_point()):
        if asked is not None or train.dtype != test.dtype:
            wrong = "targets are numbers to regress on" if train.dtype == test.dtype else "targets are of two kinds"
            raise ValueError(f"dataset.classes={asked}: {wrong}; allowed: null, and targets of one kind")
        return 0
    found = int(train.max()) + 1
    classes = found if asked is None else check_count("dataset.classes", asked)
    for key, targets in (("dataset.train", train), ("dataset.test", test)):
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            wrong = f"has targets from {int(targets.min())} to {int(targets.max())}"
            # More classes make no room for numbers below 0, and without any others there is no upper end to name.
            numbers = f"class numbers from 0 to {classes - 1}, or more dataset.classes"
            raise ValueError(f"{key}: {wrong}; allowed: {'class numbers from 0' if targets.min() < 0 else numbers}")
    return classes


def _limit_key(key: str) -> str:
    return key.replace("dataset.", "dataset.limit_")
