import multiprocessing
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from runner.sweeps import warm_data
from runner.train import datasets
from tests.trial import compose


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_kept", {})


def text(*overrides: str) -> str:
    return OmegaConf.to_yaml(compose(*overrides).dataset, resolve=True)


def test_data_are_loaded_once():
    warm_data.load(text("dataset.limit_train=32"))
    config = compose("dataset.limit_train=32", "seed=7", "algorithm=sgd").dataset
    assert datasets.dataset_of(config) is datasets.dataset_of(config)


def test_loading_starts_no_thread_and_no_process(monkeypatch: pytest.MonkeyPatch):
    """A job that is forked from a process with threads may hang."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    chosen, seen = list[int](), list[Any]()
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)

    def keep(config: Any) -> None:
        seen.append((list(chosen), multiprocessing.current_process().daemon))
        raise MemoryError

    monkeypatch.setattr(datasets, "keep", keep)
    warm_data.load(text())
    assert seen == [([1], True)], "decoders start no processes of a daemon"
    assert (chosen, multiprocessing.current_process().daemon) == ([1, 2], False)


def test_data_that_cannot_be_loaded_are_left_to_jobs():
    warm_data.load(text("dataset.limit_train=0"))
    assert datasets._kept == {}
