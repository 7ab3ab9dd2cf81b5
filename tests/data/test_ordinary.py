import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from data.ordinary import MapStyle


class Drawn(Dataset[Any]):
    """Samples that are drawn anew whenever they are read."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item(), float(number)]), number % 3  # noqa: NPY002


class Listed(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


class Gone(Listed):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Any:
        raise OSError("the disk is gone")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def images(n: int = 9, *, kind: torch.dtype = torch.float32) -> TensorDataset:
    values = torch.arange(n * 4).view(n, 1, 2, 2).to(kind)
    return TensorDataset(values, torch.arange(n) % 3)


def test_samples_are_kept_in_order():
    data = MapStyle(train=images(), test=images(3))
    assert (data.name, data.shape, data.classes, len(data.train), len(data.test)) == (
        "TensorDataset",
        (1, 2, 2),
        3,
        9,
        3,
    )
    inputs, targets = data.train.batch(torch.tensor([2, 0]))
    assert torch.equal(inputs.flatten(1), torch.tensor([[8.0, 9, 10, 11], [0, 1, 2, 3]]))
    assert targets.tolist() == [2, 0]
    assert data.validation is None


@pytest.mark.parametrize("in_memory", [True, False])
def test_bytes_are_scaled_as_torchvision_does(in_memory: bool):
    data = MapStyle(train=images(kind=torch.uint8), in_memory=in_memory)
    inputs, _ = data.train.batch(torch.tensor([3]))
    assert torch.allclose(inputs.flatten(), torch.tensor([12.0, 13, 14, 15]) / 255, rtol=1e-6)


@pytest.mark.parametrize("in_memory", [True, False])
def test_without_test_samples_there_are_none(in_memory: bool):
    data = MapStyle(train=images(), in_memory=in_memory)
    assert len(data.test) == 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_limits_and_validation_take_samples(in_memory: bool):
    data = MapStyle(train=images(18), test=images(9), limit_train=12, limit_test=6, validation=3, in_memory=in_memory)
    assert [len(split) for split in data.splits] == [9, 6, 3]
    same = MapStyle(train=images(18), test=images(9), limit_train=12, limit_test=6, validation=3)
    assert data.validation is not None
    assert same.validation is not None
    ids = torch.arange(3)
    for a, b in zip(data.validation.batch(ids), same.validation.batch(ids), strict=True):
        assert torch.equal(a, b)


def test_random_transform_is_a_function_of_seed_epoch_and_sample():
    data = MapStyle(train=Drawn(), in_memory=False)
    states = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist(), torch.get_rng_state()  # noqa: NPY002
    first, _ = data.train.batch(torch.tensor([4, 1]), seed=5, epoch=2)
    again, _ = data.train.batch(torch.tensor([1, 7]), seed=5, epoch=2)
    assert torch.equal(first[1], again[0])
    for seed, epoch in ((5, 3), (6, 2)):
        other, _ = data.train.batch(torch.tensor([1]), seed=seed, epoch=epoch)
        assert (other[0, :3] != first[1, :3]).all()
    # Nothing else of the process draws other numbers for it.
    assert random.getstate() == states[0]
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_split_that_reads_says_so():
    data = MapStyle(train=Drawn(), in_memory=False)
    # On a GPU a step that reads samples must not be captured.
    assert hasattr(data.train, "expect")
    assert not hasattr(MapStyle(train=images()).train, "expect")
    assert data.train.nbytes == 12 * 8


def test_fingerprint_is_of_the_samples():
    one = MapStyle(train=images()).fingerprint
    assert one == MapStyle(train=images()).fingerprint
    assert one != MapStyle(train=images(), test=images(3)).fingerprint
    assert one != MapStyle(train=images(), limit_train=6).fingerprint
    assert MapStyle(train=Drawn(), in_memory=False).fingerprint == MapStyle(train=Drawn(), in_memory=False).fingerprint


def test_numbers_make_a_regression():
    pairs = TensorDataset(torch.ones(4, 2), torch.tensor([0.5, 1.0, -2.0, 3.0]))
    data = MapStyle(train=pairs, test=pairs)
    assert data.classes == 0
    assert data.train.targets.dtype == torch.float32
    with pytest.raises(ValueError, match=r"dataset\.classes=3: targets are numbers to regress on"):
        MapStyle(train=pairs, test=pairs, classes=3)


@pytest.mark.parametrize(
    ("train", "wrong"),
    [
        (Drawn(), r"dataset\.in_memory=true: sample 0 of dataset\.train is another one whenever it is read"),
        (Endless(), r"dataset\.train: a Endless has no samples by number; allowed: map-style"),
        (5, r"dataset\.train: a int has no samples by number"),
        (Listed(), r"dataset\.train: has no samples"),
        (Listed(torch.ones(2)), r"dataset\.train: sample 0 is a Tensor; allowed: pairs"),
        (Listed((object(), 1)), r"dataset\.train: sample 0 is a pair of object and int; allowed: .*ToTensor"),
        (Listed((torch.ones(2), 0), (torch.ones(3), 0)), r"sample 1 has shape \(3,\), and sample 0 \(2,\)"),
        (Listed((torch.ones(2), torch.ones(2))), r"sample 0 has a target of shape \(2,\)"),
        (Listed((1.0, 0)), r"sample 0 has an input of shape \(\)"),
        (Listed((torch.ones(2), 0), (torch.ones(2), 0.5)), "some targets are whole numbers and some are not"),
        (Listed((torch.ones(2), -1), (torch.ones(2), 1)), r"dataset\.train: has targets from -1 to 1"),
        (Listed((torch.ones(2), -1)), r"has targets from -1 to -1; allowed: class numbers from 0$"),
        (Listed((torch.tensor([1.0, torch.nan]), 0)), r"dataset\.train: sample 0 has values that are infinite or NaN"),
        (Listed((torch.ones(2), torch.inf)), r"dataset\.train: sample 0 has values that are infinite or NaN"),
        (Gone(), r"dataset\.train: sample 0 cannot be read \(OSError: the disk is gone\); allowed: "),
    ],
)
def test_unfit_samples_are_refused(train: Any, wrong: str):
    with pytest.raises(ValueError, match=wrong):
        MapStyle(train=train)


def test_test_samples_must_fit():
    with pytest.raises(ValueError, match=r"dataset\.test: its samples have shape \(2,\), and those of dataset\.train"):
        MapStyle(train=images(), test=Listed((torch.ones(2), 0)))
    few = Listed((torch.ones(1, 2, 2), 7))
    with pytest.raises(ValueError, match=r"dataset\.test: has targets from 7 to 7; allowed: class numbers from 0 to 2"):
        MapStyle(train=images(), test=few)
    assert MapStyle(train=images(), test=few, classes=8).classes == 8
