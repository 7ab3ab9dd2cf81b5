"""Classes that have another name today than in run folders, or in a user's own yaml files, that were written before.

A `_target_` of the table's left side means the class of the right side. A recorded configuration holds every key of its
sections, so that a class that was merged into a more general one gets its numbers from there.
"""

from __future__ import annotations

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
SECTIONS = ("algorithm", "model", "dataset", "hydra.launcher", "hydra.sweeper")
"""Where a configuration names classes."""


def rename_targets(cfg: DictConfig) -> None:
    """Write the present names over old ones, in place; what a configuration lacks is passed over.

    Args:
        cfg: a composed or recorded configuration, with Hydra's own section or without.
    """
    for section in SECTIONS:
        node: Any = OmegaConf.select(cfg, section)
        target = node.get("_target_") if isinstance(node, DictConfig) else None
        if target in OLD_NAMES:
            # Hydra's own section is read-only.
            with read_write(node):
                node._target_ = OLD_NAMES[target]
