import pytest
import torch
from sklearn.datasets import load_digits

from data.digits import Digits


def test_split_is_stratified_and_complete():
    data = Digits()
    assert (data.name, data.shape, data.classes) == ("digits", (1, 8, 8), 10)
    assert (len(data.train), len(data.test)) == (1437, 360)
    train, test = torch.bincount(data.train.targets), torch.bincount(data.test.targets)
    assert ((test / (train + test)) - 0.2).abs().max() < 0.01
    images = torch.as_tensor(load_digits(return_X_y=True)[0]).to(torch.uint8).view(-1, 1, 8, 8)
    both = torch.cat((data.train.inputs, data.test.inputs)).flatten(1).tolist()
    assert sorted(both) == sorted(images.flatten(1).tolist())


def test_normalised_and_reproducible():
    data = Digits()
    batch, _ = data.train.batch(torch.arange(1437))
    assert abs(batch.mean().item()) < 0.01
    assert abs(batch.std().item() - 1) < 0.01
    assert Digits().fingerprint == data.fingerprint


def test_fixed_for_ever():
    """Results are compared over versions of everything: the split and its order are part of the contract."""
    assert Digits().fingerprint == "8daa6911e2f0582b176f613332566b6a2bb34a94f37b17afbe87d4634165620e"


def test_limits_keep_classes_balanced():
    data = Digits(limit_train=100, limit_test=20)
    assert torch.bincount(data.train.targets).tolist() == [10] * 10
    assert torch.bincount(data.test.targets).tolist() == [2] * 10
    with pytest.raises(ValueError, match=r"dataset.limit_train=1438: .*from 1 to 1437, or null"):
        Digits(limit_train=1438)


def test_augmentation_shifts_by_one_pixel_at_most():
    data = Digits(augment=True)
    ids = torch.arange(200)
    plain, _ = data.train.batch(ids)
    shifted, _ = data.train.batch(ids, seed=0)
    black = plain.min()
    padded = torch.nn.functional.pad(plain, (1,) * 4, value=black.item())
    windows = torch.stack([padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)])
    assert (windows == shifted).flatten(2).all(2).any(0).all()
    assert not torch.equal(plain, shifted)
