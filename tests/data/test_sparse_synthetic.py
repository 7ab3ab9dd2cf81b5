import numpy as np
import pytest
import torch

from data import sparse_synthetic
from data.base import Split
from data.sparse import SparseSplit
from data.sparse_synthetic import SparseSynthetic, frequencies


def dense(data: SparseSynthetic) -> torch.Tensor:
    return data.train.batch(torch.arange(len(data.train)))[0]


def test_density_and_frequencies_are_those_asked():
    x = dense(SparseSynthetic(samples=3000, features=200, density=0.05, skew=1.2, unit_norm=False))
    assert np.count_nonzero(x) / x.numel() == pytest.approx(0.05, rel=0.01)
    often = frequencies(200, 0.05, 1.2)
    assert torch.equal((x != 0).sum(0), torch.from_numpy(np.rint(3000 * often).astype(np.int64)))
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert float(x[x > 0].mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("features", "density", "skew"), [(54, 0.22, 3), (47_236, 0.0016, 1), (10, 1, 2), (7, 0.3, 0)])
def test_frequencies_follow_a_power_law(features: int, density: float, skew: float):
    often = frequencies(features, density, skew)
    assert often.mean() == pytest.approx(density)
    assert ((often > 0) & (often <= 1)).all()
    rarer = often[often < 1]
    places = np.arange(1, features + 1)[often < 1]
    np.testing.assert_allclose(rarer * places**skew, (rarer * places**skew)[:1].repeat(len(rarer)))


def test_norms_are_one_or_zero():
    x = dense(SparseSynthetic(samples=2000, features=50, density=0.02))
    norms = torch.linalg.vector_norm(x, dim=1)
    some = norms > 0
    assert 0 < int((~some).sum()) < 2000, "some samples have no feature"
    torch.testing.assert_close(norms[some], torch.ones(int(some.sum())))


def test_classes_are_even_and_come_from_a_weight():
    data = SparseSynthetic(samples=4000, features=20, density=0.3, flipped=0.05)
    share = float(data.train.targets.double().mean())
    assert share == pytest.approx(0.5, abs=0.02)
    x, signs = dense(data).double(), 2.0 * data.train.targets - 1
    with_one = torch.cat([x, torch.ones(4000, 1, dtype=torch.float64)], 1)
    fitted = with_one @ torch.linalg.lstsq(with_one, signs[:, None].double()).solution
    right = float(((fitted[:, 0] > 0) == (signs > 0)).double().mean())
    assert 0.8 < right < 0.96, "a linear map finds the classes, but for those flipped"
    fair = SparseSynthetic(samples=4000, features=20, density=0.3, flipped=0)
    assert float((fair.train.targets != data.train.targets).double().mean()) == pytest.approx(0.05, abs=0.015)


def test_the_seed_alone_decides(monkeypatch: pytest.MonkeyPatch):
    data = SparseSynthetic(samples=500, features=40, density=0.05)
    monkeypatch.setattr(sparse_synthetic, "CHUNK", 64)
    again = SparseSynthetic(samples=500, features=40, density=0.05)
    assert torch.equal(dense(again), dense(data))
    assert again.fingerprint == data.fingerprint
    assert SparseSynthetic(samples=500, features=40, density=0.05, seed=1).fingerprint != data.fingerprint


def test_the_samples_are_the_same_on_every_machine():
    data = SparseSynthetic(samples=300, features=30, density=0.05)
    assert data.fingerprint == "774de4cc490423594df61f17391fdf36c652411ca3b93d9b5b4bc55ca68bf462"


def test_sparse_or_large_data_stay_compressed(monkeypatch: pytest.MonkeyPatch):
    sparse = SparseSynthetic(samples=100, features=20, density=0.09)
    filled = SparseSynthetic(samples=100, features=20, density=0.11)
    assert isinstance(sparse.train, SparseSplit)
    assert type(filled.train) is Split
    assert (
        (sparse.shape, sparse.classes, len(sparse.test))
        == (filled.shape, filled.classes, len(filled.test))
        == ((20,), 2, 0)
    )
    monkeypatch.setattr(sparse_synthetic, "DENSE_BYTES", 7999)
    large = SparseSynthetic(samples=100, features=20, density=0.11)
    assert isinstance(large.train, SparseSplit)
    assert torch.equal(dense(large), dense(filled))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("samples", 1),
        ("samples", 2**31),
        ("features", 0),
        ("seed", -1),
        ("density", 0),
        ("density", 1.1),
        ("skew", -1),
        ("skew", True),
        ("flipped", 0.6),
        ("unit_norm", 1),
    ],
)
def test_wrong_options_are_refused(option: str, value: object):
    with pytest.raises(ValueError, match=rf"^dataset.{option}={value}: .*; allowed: "):
        SparseSynthetic(**{option: value})  # type: ignore[arg-type]
