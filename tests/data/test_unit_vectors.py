import pytest
import torch

from data.unit_vectors import UnitVectors


def test_norms_are_one_and_mean_small():
    data = UnitVectors(samples=2000, features=20)
    vectors, targets = data.train.batch(torch.arange(2000))
    torch.testing.assert_close(torch.linalg.vector_norm(vectors, dim=1), torch.ones(2000))
    assert float(vectors.mean(0).norm()) < 0.005
    assert not targets.any()
    assert (len(data.test), data.classes, data.shape) == (0, 1, (20,))
    assert UnitVectors(samples=2000, features=20).fingerprint == data.fingerprint
    assert UnitVectors(samples=2000, features=20, seed=1).fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("option", "value"), [("samples", 1), ("features", 0), ("seed", -1), ("samples", 10**30), ("features", 10**30)]
)
def test_wrong_options_are_refused(option: str, value: int):
    with pytest.raises(ValueError, match=rf"^dataset.{option}={value}: .*; allowed: "):
        UnitVectors(**{option: value})
