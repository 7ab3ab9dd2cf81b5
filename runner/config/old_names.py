"""New names of classes and keys that older run folders, and a user's older yaml files, know by an old name.

A `_target_` of the table's left side means the class of the right side. A recorded configuration has every key of its
sections, so a class that was merged into a more general one gets its numbers from there; a key that a class got since
is added with the value that it had without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

OLD_NAMES = {
    "data.libsvm.Covtype": "data.libsvm.LibSVM",
    "data.libsvm.IJCNN1": "data.libsvm.LibSVM",
    "data.libsvm.RCV1": "data.libsvm.LibSVM",
    "runner.launcher.FreshProcessLauncher": "runner.sweeps.subprocess_launcher.FreshProcessLauncher",
    "runner.search.OptunaSweeper": "runner.sweeps.optuna_sweeper.OptunaSweeper",
    "runner.submitting.SubmititLauncher": "runner.sweeps.submitit_launcher.SubmititLauncher",
}
"""The present name of each class, by its old name."""
OLD_KEYS = {
    "algorithm.sgd_beta": "algorithm.sgd_decay",
}
"""The present name of each key, by its old name. A message about an unknown key tells it; an old key has no effect."""
NEW_KEYS: dict[str, dict[str, Any]] = {
    "models.resnet.ResNet": {"width": 16},
}
"""Keys that a class got later, with the values that it had without them, by the class's present name."""
SECTIONS = ("algorithm", "model", "dataset", "hydra.launcher", "hydra.sweeper")
"""Sections of a configuration that name classes."""


def rename_targets(cfg: DictConfig) -> None:
    """Replace old names of classes by the present ones, in place.

    Args:
        cfg: a composed or recorded configuration, with or without Hydra's own section. It may lack any section.
    """
    for section in SECTIONS:
        node: Any = OmegaConf.select(cfg, section)
        target = node.get("_target_") if isinstance(node, DictConfig) else None
        if target in OLD_NAMES:
            # Hydra's own section is read-only.
            with read_write(node):
                node._target_ = OLD_NAMES[target]


def add_new_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration with the keys that its classes got later, so that it equals one of today.

    Args:
        config: sections as dictionaries, with or without Hydra's own section. It may lack any section.
    """
    added = dict(config)
    for section in SECTIONS:
        node = config.get(section)
        target = node.get("_target_") if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and target in NEW_KEYS:
            # After the recorded keys, which stay in their order.
            added[section] = {**node, **{key: value for key, value in NEW_KEYS[target].items() if key not in node}}
    return added
