from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.augment import PadCrop
from data.base import Dataset, Split, check_count, check_flag, limited, locate


def images(n: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_batch_is_normalised_in_order():
    inputs, mean, std = images(), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    split = Split(inputs, torch.arange(20) % 3, mean=mean, std=std)
    ids = torch.tensor([7, 3, 3, 19])
    batch, targets = split.batch(ids)
    expected = (inputs[ids].double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert batch.dtype == torch.float32
    assert targets.dtype == torch.int64
    torch.testing.assert_close(batch, expected.float(), atol=1e-5, rtol=0)
    assert targets.tolist() == [1, 0, 0, 1]


def test_vectors_come_as_copies():
    inputs = torch.randn(5, 4)
    split = Split(inputs.clone(), torch.zeros(5, dtype=torch.int64))
    batch, _ = split.batch(torch.arange(5))
    assert torch.equal(batch, inputs)
    batch.zero_()
    assert torch.equal(split.inputs, inputs)


@pytest.mark.parametrize("shape", [(9,), (3, 2, 2)])
@pytest.mark.parametrize("of_bytes", [False, True])
def test_rows_are_the_flat_batch(shape: tuple[int, ...], of_bytes: bool):
    generator = torch.Generator().manual_seed(0)
    scale: dict[str, Any] = {"mean": [0.5], "std": [2.0]} if len(shape) == 3 else {}
    inputs = torch.randn(6, *shape, generator=generator)
    split = Split((255 * inputs).abs().to(torch.uint8) if of_bytes else inputs, torch.arange(6), **scale)
    ids = torch.tensor([4, 0, 4])
    rows, targets = split.rows(ids)
    assert torch.equal(rows, split.batch(ids)[0].flatten(1))
    assert targets.tolist() == [4, 0, 4]
    rows.zero_()
    assert split.batch(ids)[0].count_nonzero(), "rows are a copy"


def test_evaluation_is_not_augmented_and_training_is():
    split = Split(images(), torch.zeros(20), mean=[0.5] * 3, std=[0.2] * 3, augment=PadCrop(2, flip=True))
    ids = torch.arange(20)
    plain = Split(images(), torch.zeros(20), mean=[0.5] * 3, std=[0.2] * 3)
    assert torch.equal(split.batch(ids)[0], plain.batch(ids)[0])
    assert torch.equal(plain.batch(ids, seed=1)[0], plain.batch(ids)[0])
    assert not torch.equal(split.batch(ids, seed=1)[0], split.batch(ids)[0])


def test_sample_is_the_same_in_any_batch():
    split = Split(images(), torch.zeros(20), mean=[0.5] * 3, std=[0.2] * 3, augment=PadCrop(2, flip=True))
    together, _ = split.batch(torch.arange(20), seed=5, epoch=3)
    order = torch.randperm(20)
    for part in order.split(3):
        assert torch.equal(split.batch(part, seed=5, epoch=3)[0], together[part])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_alike():
    here = Split(images(), torch.arange(20), mean=[0.5] * 3, std=[0.2] * 3, augment=PadCrop(2, flip=True))
    there = Split(images(), torch.arange(20), mean=[0.5] * 3, std=[0.2] * 3, augment=PadCrop(2, flip=True))
    there.to("cuda")
    ids = torch.arange(20)
    batch, targets = there.batch(ids, seed=5, epoch=3)
    assert batch.is_cuda
    assert targets.is_cuda
    torch.testing.assert_close(batch.cpu(), here.batch(ids, seed=5, epoch=3)[0])


def dataset(inputs: torch.Tensor, targets: torch.Tensor) -> Dataset:
    return Dataset(name="some", classes=4, train=Split(inputs, targets), test=Split(inputs[:2], targets[:2]))


def test_fingerprint_follows_content_and_order():
    inputs, targets = images(), torch.arange(20) % 4
    same = dataset(inputs, targets).fingerprint
    assert len(same) == 64
    assert dataset(inputs.clone(), targets.clone()).fingerprint == same
    changed = inputs.clone()
    changed[7, 1, 2, 3] ^= 1
    assert dataset(changed, targets).fingerprint != same
    assert dataset(inputs.flip(0), targets.flip(0)).fingerprint != same
    assert dataset(inputs, (targets + 1) % 4).fingerprint != same


def test_dataset_says_its_shape_and_moves():
    data = dataset(images(), torch.arange(20) % 4)
    assert data.shape == (3, 8, 8)
    data.to("cpu")
    assert data.train.device == torch.device("cpu")


def test_inputs_and_targets_must_match():
    with pytest.raises(ValueError, match="20 inputs and 19 targets"):
        Split(images(), torch.zeros(19))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_limit_balances_classes_in_order(classes: list[int], data: st.DataObject):
    limit = data.draw(st.integers(1, len(classes)))
    targets = torch.tensor(classes)
    numbers, chosen = limited(torch.arange(len(classes)), targets, limit, "dataset.limit_train")
    assert len(numbers) == limit
    assert numbers.tolist() == sorted(numbers.tolist())
    assert torch.equal(targets[numbers], chosen)
    available = torch.bincount(targets, minlength=6)
    taken = torch.bincount(chosen, minlength=6)
    short = taken < available  # only a class that ran out may be more than one behind
    assert (taken[short] >= taken.max() - 1).all()


@pytest.mark.parametrize("limit", [0, -3, 21, 2.5, "many", True])
def test_wrong_limits_are_refused(limit: object):
    with pytest.raises(ValueError, match=rf"dataset.limit_train={limit}: .*whole numbers from 1 to 20, or null"):
        limited(images(), torch.zeros(20, dtype=torch.int64), limit, "dataset.limit_train")


def test_checks_name_the_key():
    assert check_count("dataset.workers", 3) == 3
    with pytest.raises(ValueError, match=r"dataset.workers=0: .*allowed: whole numbers from 1"):
        check_count("dataset.workers", 0)
    with pytest.raises(ValueError, match=r"dataset.augment=yes: .*allowed: true, false"):
        check_flag("dataset.augment", "yes")


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    assert str(locate(None)[0]) == "data-sets"
    monkeypatch.setenv("DCRUN_DATA", "/somewhere")
    assert locate(None) == (locate("/somewhere")[0], "dataset.root=null (here /somewhere)")
    assert locate("x")[1] == "dataset.root=x"
    with pytest.raises(ValueError, match=r"dataset.root=3: is not a path"):
        locate(3)


def test_numbers_stay_numbers():
    split = Split(torch.zeros(3, 2), torch.tensor([0.25, -7.5, 3.0], dtype=torch.float64))
    targets = split.batch(torch.tensor([1, 2]))[1]
    assert (targets.dtype, targets.tolist()) == (torch.float32, [-7.5, 3.0])
    assert Split(torch.zeros(2, 2), torch.tensor([1, 0], dtype=torch.int8)).targets.dtype == torch.int64


def test_limit_of_numbers_takes_the_first():
    numbers = torch.tensor([0.5, 3.0, -1.0, 0.5])
    chosen, targets = limited(torch.arange(4), numbers, 2, "dataset.limit_train")
    assert (chosen.tolist(), targets.tolist()) == ([0, 1], [0.5, 3.0])
    with pytest.raises(ValueError, match=r"^dataset.limit_train=5: "):
        limited(torch.arange(4), numbers, 5, "dataset.limit_train")


def test_tokens_stay_whole_numbers():
    tokens = torch.tensor([[7, 2**40], [1, 300]])
    inputs, targets = Split(tokens, tokens + 1).batch(torch.tensor([1, 0]), seed=3)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, tokens.flip(0))
    assert torch.equal(targets, tokens.flip(0) + 1)
