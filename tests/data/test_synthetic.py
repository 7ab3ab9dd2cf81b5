import numpy as np
import pytest
import torch

from data.synthetic import Synthetic


def test_vectors_have_shape_and_classes():
    data = Synthetic(shape=[22], classes=2, train=300, test=100)
    assert (data.name, data.shape, data.classes, len(data.train), len(data.test)) == ("synthetic", (22,), 2, 300, 100)
    assert data.train.inputs.dtype == torch.float32
    assert torch.bincount(data.train.targets).tolist() == [150, 150]


def test_images_are_bytes():
    data = Synthetic(shape=[3, 32, 32], classes=10, train=50, test=10)
    assert data.train.inputs.dtype == torch.uint8
    batch, _ = data.train.batch(torch.arange(50))
    assert batch.shape == (50, 3, 32, 32)
    assert abs(batch.mean().item()) < 0.2
    assert 1.2 < batch.std().item() < 1.6  # means and noise of one each


def test_images_are_rounded_and_saturate():
    data = Synthetic(shape=[1, 4, 4], classes=3000, train=3000, test=3000, noise=0)
    means = np.random.Generator(np.random.PCG64(0)).standard_normal((3000, 1, 4, 4), dtype=np.float32)
    assert (np.abs(means) > 4).any(), "some pixels are beyond black and white"
    assert np.array_equal(data.train.inputs.numpy(), np.rint(means * 32 + 128).clip(0, 255).astype(np.uint8))


def test_seed_decides_the_data():
    make = {"shape": [5], "classes": 3, "train": 30, "test": 9}
    assert Synthetic(**make).fingerprint == Synthetic(**make).fingerprint
    assert Synthetic(**make).fingerprint != Synthetic(**make, seed=1).fingerprint


@pytest.mark.parametrize("shape", [[22], [1, 8, 8], [3, 4]])
def test_nearest_class_mean_generalises(shape: list[int]):
    data = Synthetic(shape=shape, classes=4, train=400, test=200)
    train, labels = data.train.batch(torch.arange(400))
    test, targets = data.test.batch(torch.arange(200))
    means = torch.stack([train[labels == c].mean(0).flatten() for c in range(4)])
    guesses = torch.cdist(test.flatten(1), means).argmin(1)
    assert (guesses == targets).float().mean() > 0.85


def test_noise_has_its_deviation():
    clean = Synthetic(shape=[6], noise=0, train=20, test=10)
    assert torch.equal(clean.train.inputs[:10], clean.train.inputs[10:])
    noisy = Synthetic(shape=[6], noise=3.0, train=5000, test=10)
    within = noisy.train.inputs[noisy.train.targets == 1].std(0)
    assert (within - 3).abs().max() < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": []}, r"dataset.shape=\[\]: is not a list of sizes"),
        ({"shape": "3"}, "dataset.shape=3: is not a list of sizes"),
        ({"shape": [3, 0]}, "dataset.shape=0: .*whole numbers from 1"),
        ({"classes": 1}, "dataset.classes=1: .*whole numbers from 2"),
        ({"train": 5}, "dataset.train=5: .*whole numbers from 10"),
        ({"noise": -1}, "dataset.noise=-1: .*numbers from 0"),
        ({"noise": float("nan")}, "dataset.noise=nan: "),
        ({"noise": 1e300}, "dataset.noise=1e.300: .*numbers from 0 to 1e.30"),
        ({"classes": 10**30}, "dataset.classes=1000.*: .*whole numbers from 2 to 1099511627776"),
        ({"train": 10**30}, "dataset.train=1000.*: .*whole numbers from 10 to 1099511627776"),
        ({"shape": [10**30]}, "dataset.shape=1000.*: .*whole numbers from 1 to 1099511627776"),
        ({"seed": -1}, "dataset.seed=-1: "),
        ({"limit_test": 501}, "dataset.limit_test=501: .*from 1 to 500, or null"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Synthetic(**options)
