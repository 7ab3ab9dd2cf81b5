"""Builds the data set that a configuration names, or gives one that this process was started with."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from runner.config.errors import InputError, building

_kept: dict[str, Any] = {}


def dataset_of(config: Any) -> Any:
    """Return the data set of the section `dataset`.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    kept = _kept.get(_key(config))
    if kept is not None:
        return kept
    with building():
        dataset = instantiate(config)
    # Of an ordinary dataset there is one for each split, and nothing says which.
    if isinstance(dataset, Dataset) and not hasattr(dataset, "fingerprint"):
        wrong, allowed = (
            "is a single set of samples",
            "dataset=own with dataset.train and dataset.test (docs/own_code.md)",
        )
        raise InputError.of("dataset._target_", config._target_, wrong, allowed)
    return dataset


def keep(config: Any) -> None:
    """Load a data set for all runs of this process, and of those forked from it: they get one and the same.

    Samples that are decoded as they are used are not kept: files would be read by several processes at one place.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    dataset = dataset_of(config)
    if not hasattr(dataset.train, "expect"):
        _kept[_key(config)] = dataset


def _key(config: DictConfig) -> str:
    return OmegaConf.to_yaml(config, resolve=True)
