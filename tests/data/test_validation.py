"""The validation split: which samples it takes from every kind of data, and what it leaves as it was."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.augment import PadCrop
from data.base import Dataset, Split
from data.digits import Digits
from data.libsvm import LibSVM
from data.sparse import SparseSplit
from data.sparse_synthetic import SparseSynthetic
from data.synthetic import Synthetic
from data.unit_vectors import UnitVectors
from data.validation import divided, shares


def numbered(targets: torch.Tensor, validation: Any, **own: Any) -> tuple[Split, Split | None]:
    """Divide samples whose one feature is their number."""
    return divided(Split(torch.arange(len(targets)).float()[:, None], targets, **own), validation)


def ids(split: Split | None) -> list[int]:
    assert split is not None
    return split.inputs[:, 0].long().tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.data())
def test_parts_are_disjoint_and_proportional(classes: list[int], data: st.DataObject):
    targets = torch.tensor(classes)
    there = len(set(classes))
    if there == len(classes):
        return
    count = data.draw(st.integers(1, len(classes) - there))
    train, validation = numbered(targets, count)
    assert validation is not None
    assert (len(train), len(validation)) == (len(classes) - count, count)
    assert sorted(ids(train) + ids(validation)) == list(range(len(classes)))
    assert ids(train) == sorted(ids(train))
    assert ids(validation) == sorted(ids(validation)), "in the order of the data"
    assert targets[ids(validation)].tolist() == validation.targets.tolist()
    assert set(train.targets.tolist()) == set(classes), "each class keeps a sample"
    taken, sizes = (torch.bincount(part, minlength=6) for part in (validation.targets, targets))
    exact = sizes * count / len(classes)
    # Only a class that has nothing more to give makes another one give more than its part.
    if bool((exact.ceil() < sizes)[sizes > 0].all()):
        assert bool(((taken - exact).abs() < 1).all())


def test_shares_are_the_largest_remainders():
    assert shares([50, 50], 10) == [5, 5]
    assert shares([90, 10], 10) == [9, 1]
    assert shares([3, 3, 3], 4) == [2, 1, 1]
    assert shares([0, 6, 1, 1], 5) == [0, 5, 0, 0], "the last sample of a class stays"


def test_even_classes_give_the_same():
    validation = Synthetic(train=200, validation=50).validation
    assert validation is not None
    assert torch.bincount(validation.targets).tolist() == [5] * 10


def test_share_is_rounded():
    data = Digits(validation=0.1)
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)


EXPECTED = [6, 11, 20, 23, 29, 38]
"""Which of forty samples of two classes the six for validation are: another NumPy must find the same."""


def test_draw_is_the_same_everywhere():
    _, validation = numbered(torch.arange(40) % 2, 6)
    assert ids(validation) == EXPECTED
    _, again = numbered(torch.arange(40) % 2, 0.15)
    assert ids(again) == EXPECTED


def test_numbers_are_drawn_without_classes():
    train, validation = numbered(torch.linspace(-1, 1, 10), 9)
    assert (len(train), len(ids(validation))) == (1, 9)


def test_validation_is_not_augmented():
    inputs = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.2] * 3}
    whole = Split(inputs, torch.zeros(20, dtype=torch.int64), augment=PadCrop(2, flip=True), **own)
    train, validation = divided(whole, 8)
    assert validation is not None
    places = torch.arange(8)
    assert torch.equal(validation.batch(places, seed=1)[0], validation.batch(places)[0])
    assert not torch.equal(train.batch(places, seed=1)[0], train.batch(places)[0])


@pytest.mark.parametrize("value", [0, 1.0, 0.0, -0.1, -3, 1.5, math.nan, math.inf, True, "0.1", "many", 0.001, 17, 99])
def test_wrong_values_are_refused(value: object):
    with pytest.raises(
        ValueError, match=r"^dataset\.validation=.*: is not allowed; allowed: 1 to 16 of the 20"
    ) as error:
        numbered(torch.arange(20) % 4, value)
    assert str(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_to_spare_is_refused():
    with pytest.raises(
        ValueError, match=r"^dataset\.validation=1: is not allowed; allowed: null \(each class keeps one\)"
    ):
        numbered(torch.arange(4), 1)


def test_fingerprint_knows_the_validation_split():
    plain, *others = (Digits(validation=value).fingerprint for value in (None, 0.1, 0.2))
    assert plain == Digits().fingerprint
    assert len({plain, *others}) == 3


def libsvm(folder: Path, **own: Any) -> LibSVM:
    random = np.random.default_rng(0)
    lines = [f"{i % 2} 1:{i} 3:{random.random():.3f}" for i in range(40)]
    (folder / "some").write_text("\n".join(lines) + "\n")
    return LibSVM(root=str(folder), file="some", **own)


def test_every_kind_of_data_has_one(tmp_path: Path):
    kinds: list[Dataset] = [
        Synthetic(train=100, validation=10),
        UnitVectors(samples=100, validation=10),
        SparseSynthetic(samples=100, features=50, density=0.05, validation=10),
        SparseSynthetic(samples=100, features=50, density=0.5, validation=10),
        libsvm(tmp_path, test_share=0.25, validation=10),
        libsvm(tmp_path, targets="numbers", validation=10),
    ]
    for data in kinds:
        assert data.validation is not None
        assert len(data.validation) == 10
        assert len(data.validation.batch(torch.arange(10))[0]) == 10
        assert [split for split in data.splits if split is data.validation] == [data.validation]


def test_compressed_rows_are_divided():
    plain = SparseSynthetic(samples=100, features=50, density=0.05)
    data = SparseSynthetic(samples=100, features=50, density=0.05, validation=0.2)
    assert isinstance(data.validation, SparseSplit)
    whole, _ = plain.train.batch(torch.arange(100))
    parts = torch.cat([split.batch(torch.arange(len(split)))[0] for split in (data.train, data.validation)])
    order = torch.argsort(parts @ torch.linspace(1, 2, 50))
    assert torch.equal(parts[order], whole[torch.argsort(whole @ torch.linspace(1, 2, 50))])
    assert data.fingerprint != plain.fingerprint


def test_limit_comes_first(tmp_path: Path):
    data = libsvm(tmp_path, limit_train=20, validation=0.25, test_share=0.1)
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 5, 4)


def test_test_split_stays_as_it_is():
    plain, data = Digits(augment=True), Digits(augment=True, validation=0.3)
    assert torch.equal(plain.test.inputs, data.test.inputs)
    assert data.train.augment is not None
