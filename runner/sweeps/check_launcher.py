"""Refuses a sweep that cannot be launched, before Hydra begins it."""

import importlib.util

from omegaconf import DictConfig

from runner.config.errors import InputError
from runner.config.old_names import OLD_NAMES
from runner.sweeps import search_pruning, search_space
from runner.sweeps.placement import AUTO
from runner.sweeps.subprocess_launcher import PLUGINS, FreshProcessLauncher

_EXTRAS = {"runner.sweeps.optuna_sweeper": "optuna", "runner.sweeps.submitit_launcher": "submitit"}
"""Packages that only some sweepers and launchers need, by the module that uses them."""


def check(config: DictConfig) -> None:
    """Refuse what a sweep's launcher or sweeper cannot do.

    Args:
        config: the configuration of a job, with Hydra's part.

    Raises:
        InputError: if a package is not installed, the launcher is none of this project's, or one of its numbers is
            wrong.
    """
    target = str(config.hydra.launcher.get("_target_", ""))
    # Any other, as Hydra's own, would have nothing to call: a job is a command line, which this project's start.
    if OLD_NAMES.get(target, target) not in PLUGINS:
        chosen = config.hydra.runtime.choices.get("hydra/launcher")
        allowed = "fresh_process, submitit_local, slurm"
        raise InputError.of("hydra/launcher", chosen, "does not start this project's jobs", allowed)
    for group in ("sweeper", "launcher"):
        module = str(config.hydra[group].get("_target_", "")).rpartition(".")[0]
        package = _EXTRAS.get(module)
        # Looked for, not imported: torch-free commands answer at once.
        if package and importlib.util.find_spec(package) is None:
            chosen = config.hydra.runtime.choices.get(f"hydra/{group}")
            wrong = f"needs the package {package}, which is not installed"
            raise InputError.of(f"hydra/{group}", chosen, wrong, f"pip install {package} first, or another {group}")
    if search_space.uses_search(config):
        search_pruning.check_options(config)
    fork = config.hydra.launcher.get("fork", True)
    if not isinstance(fork, bool):
        raise InputError.of("hydra.launcher.fork", fork, "is not a choice", "true, false")
    n_jobs = config.hydra.launcher.get("n_jobs")
    if n_jobs == AUTO:
        _check_auto(config, OLD_NAMES.get(target, target))
    elif n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1):
        raise InputError.of("hydra.launcher.n_jobs", n_jobs, "is not a number of jobs", f"{AUTO}, integers from 1")


def _check_auto(config: DictConfig, target: str) -> None:
    """Refuse `n_jobs=auto` if something else than this machine decides, or the number changes what is run."""
    if not target.endswith(f".{FreshProcessLauncher.__name__}"):
        chosen = config.hydra.runtime.choices.get("hydra/launcher")
        wrong = f"hydra/launcher={chosen} does not look at the machines that its jobs will get"
    elif search_space.uses_search(config):
        wrong = "a search proposes as many settings as run at a time, and would propose others on another machine"
    else:
        return
    raise InputError.of("hydra.launcher.n_jobs", AUTO, wrong, "integers from 1")
