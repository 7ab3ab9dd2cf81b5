"""Class names of run folders written before, and what they mean today."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from data.libsvm import LibSVM
from runner.config.old_names import NEW_KEYS, OLD_NAMES, add_new_keys, rename_targets
from runner.run_folder.resume import _identity, _stored_identity
from runner.sweeps import subprocess_launcher

RECORDED = """
algorithm: {_target_: algorithms.sgd.SGD, momentum: 0.9}
model: null
dataset:
  _target_: data.libsvm.IJCNN1
  root: nowhere
  file: small
  samples: 4
  features: 3
  test_share: 0.0
  split_seed: 0
  limit_train: null
  limit_test: null
"""


@pytest.mark.parametrize("old", OLD_NAMES)
def test_old_name_gives_a_class(old: str):
    cfg = OmegaConf.create({"dataset": {"_target_": old}})
    rename_targets(cfg)
    assert get_class(cfg.dataset._target_).__name__ in (old.rpartition(".")[2], "LibSVM")
    assert OLD_NAMES[old] not in OLD_NAMES


def test_recorded_dataset_still_builds(tmp_path: Path):
    (tmp_path / "small").write_text("-1 1:0.5 3:2\n1 2:-1\n1 1:1 2:1 3:1\n-1 2:0.25\n")
    cfg: Any = OmegaConf.create(RECORDED)
    rename_targets(cfg)
    cfg.dataset.root = str(tmp_path)
    data = instantiate(cfg.dataset)
    assert isinstance(data, LibSVM)
    assert (data.name, data.shape, len(data.train)) == ("small", (3,), 4)


def test_other_sections_stay_as_they_are():
    cfg: Any = OmegaConf.create(RECORDED)
    rename_targets(cfg)
    assert cfg.algorithm == {"_target_": "algorithms.sgd.SGD", "momentum": 0.9}
    assert cfg.model is None


def test_read_only_hydra_section_is_renamed():
    cfg = OmegaConf.create({"hydra": {"launcher": {"_target_": "runner.launcher.FreshProcessLauncher", "n_jobs": 2}}})
    OmegaConf.set_readonly(cfg, True)
    rename_targets(cfg)
    assert cfg.hydra.launcher == {"_target_": "runner.sweeps.subprocess_launcher.FreshProcessLauncher", "n_jobs": 2}


def test_run_under_old_name_is_found(tmp_path: Path):
    recorded = OmegaConf.merge(OmegaConf.create(RECORDED), {"run": {"epochs": 1}})
    OmegaConf.save(recorded, tmp_path / "config.yaml")
    today = _stored_identity(tmp_path / "config.yaml")
    assert today["dataset"]["_target_"] == "data.libsvm.LibSVM"
    assert {**today["dataset"], "_target_": None} == {**_identity(recorded)["dataset"], "_target_": None}


def test_hydra_finds_plugins_by_old_names():
    subprocess_launcher.register()
    subprocess_launcher.register_old_names()
    plugins, old = Plugins.instance(), "runner.launcher.FreshProcessLauncher"
    assert plugins.is_in_toplevel_plugins_module(old)
    assert plugins.class_name_to_class[old] is subprocess_launcher.FreshProcessLauncher


def test_later_keys_make_no_other_run():
    before = OmegaConf.create({"model": {"_target_": "models.resnet.ResNet", "depth": 8}, "run": {}})
    now = OmegaConf.create({"model": {"_target_": "models.resnet.ResNet", "depth": 8, "width": 16}, "run": {}})
    narrow = OmegaConf.create({"model": {"_target_": "models.resnet.ResNet", "depth": 8, "width": 8}, "run": {}})
    assert _identity(before) == _identity(now)
    assert _identity(before) != _identity(narrow)


def test_later_keys_keep_what_was_recorded():
    recorded = {"model": {"_target_": "models.resnet.ResNet", "width": 8, "depth": 20}, "seed": 3, "dataset": None}
    assert add_new_keys(recorded) == recorded
    assert list(add_new_keys({"model": {"_target_": "models.resnet.ResNet", "depth": 20}})["model"])[-1] == "width"


@pytest.mark.parametrize("name", NEW_KEYS)
def test_later_keys_are_the_defaults_of_their_class(name: str):
    parameters = signature(get_class(name)).parameters
    assert {key: parameters[key].default for key in NEW_KEYS[name]} == NEW_KEYS[name]
