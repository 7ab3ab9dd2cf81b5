from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.config.errors import InputError
from runner.train import datasets
from tests.trial import compose


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_kept", {})


def test_kept_data_are_those_of_equal_configurations():
    config, other = (compose(f"dataset.limit_train={n}").dataset for n in (32, 33))
    datasets.keep(config)
    assert datasets.dataset_of(compose("dataset.limit_train=32", "seed=1").dataset) is datasets.dataset_of(config)
    assert len(datasets.dataset_of(other).train) == 33
    assert datasets.dataset_of(other) is not datasets.dataset_of(other)


def test_streamed_samples_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    """Jobs would read open files at one and the same place."""
    config: Any = compose().dataset
    monkeypatch.setattr(datasets, "instantiate", lambda config: SimpleNamespace(train=SimpleNamespace(expect=print)))
    datasets.keep(config)
    assert datasets.dataset_of(config) is not datasets.dataset_of(config)


def test_wrong_data_are_refused():
    with pytest.raises(InputError, match="limit_train=0"):
        datasets.dataset_of(compose("dataset.limit_train=0").dataset)


def test_single_dataset_of_pytorch_is_refused():
    with pytest.raises(
        InputError, match=r"^dataset\._target_=torch\..*TensorDataset: is a single set of samples; allowed: "
    ):
        datasets.dataset_of(OmegaConf.create({"_target_": "torch.utils.data.TensorDataset"}))
