"""The sweeper of the experiments: a table of a paper is a list of cells, not all combinations of its settings.

An experiment's file names the sweeper and gives it cells and scales, each a line of overrides as on the command line:

    defaults:
      - override /hydra/sweeper: cells
    hydra:
      sweeper:
        cells:
          - algorithm=sgd
          - algorithm=asgd,ssgd cluster.workers=4,8      # four cells
          - scale=paper algorithm=asgd cluster.workers=64  # a cell of one scale; of two: scale=short,paper
        scales:
          paper: run.epochs=160
          quick: run.epochs=4 dataset.limit_train=20000

A job is composed of the experiment, the overrides of the scale and of the cell, a seed, and last what the user typed.

With `tuned: schedule.lr` the cells that differ in that key alone are one cell that looks for its own best value: the
first seed runs all values, and the other seeds the one with the least error on the validation split. Without such a
split all seeds run all values, for the test set is not to choose.

An experiment is composed twice. First the whole command line is composed, without a cell: this gives the sweeper its
cells and scales. Then each cell becomes a job, with a command line of its own: the overrides above, of a key given
twice the last. The job's process composes that line, as if the user had typed it. So a job is an ordinary run that can
be repeated alone, and that is found again by another sweep that has the same cell.
"""

import math
import shlex
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.run_folder.summary_keys import BEST_VALIDATION_ERROR, DIVERGED, STATUS
from runner.sweeps.job import Job
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

# They say which jobs there are; as overrides of a job they come back in `common`, with the values that a job has.
_CONSUMED = ("scale", "seeds")
FIRST_SEED = "seed=0"
"""The override of the jobs that come first."""


class ExperimentSweeper(Sweeper):
    """Hydra sweeper that runs a job for each cell and seed.

    Args:
        cells: the overrides of the cells, a line for each; comma-separated values of a line are combined.
        scales: the overrides of each scale, by its name.
        tuned: the key that each cell has its own best value of, which the first seed finds; None: there is none.
    """

    def __init__(self, cells: Sequence[str], scales: dict[str, str], tuned: str | None = None) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.tuned = tuned
        self.cells = list(cells)
        self.scales = dict(scales)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch all jobs.

        Args:
            arguments: the overrides that the user typed, without Hydra's own.
        """
        assert self.config is not None
        assert self.launcher is not None
        listed = jobs(self.config, arguments)
        first = [job for job in listed if job[-1] == FIRST_SEED]
        if self.tuned is None or not first or len(first) == len(listed):
            # All at once: the launcher runs as many at a time as it may, over the borders of cells.
            return [self.launcher.launch(listed, initial_job_idx=0)]
        ran = FreshProcessLauncher
        # For "job 3 of 40": of each cell one value goes on.
        seeds, before = len(seeds_of(self.config)), len(ran.jobs)
        cells = {_cell(job, self.tuned) for job in first}
        if isinstance(self.launcher, FreshProcessLauncher):
            self.launcher.expected = len(first) + len(cells) * (seeds - 1)
        done = [self.launcher.launch(first, initial_job_idx=0)]
        if not ran.over():
            rest = _chosen(ran.jobs[before:], listed, self.tuned)
            done.append(self.launcher.launch(rest, initial_job_idx=len(first)))
        return done


def is_experiment(config: DictConfig) -> bool:
    """Return whether a composed configuration, which includes Hydra's part, has a sweeper of cells."""
    sweeper = config.hydra.sweeper
    return str(sweeper.get("_target_", "")).endswith(f".{ExperimentSweeper.__name__}")


def jobs(config: DictConfig, typed: Sequence[str]) -> list[list[str]]:
    """List the overrides of every job of an experiment.

    Args:
        config: the configuration that the command line composes to, with Hydra's part.
        typed: the overrides on the command line, without Hydra's own.

    Returns:
        The jobs of each seed in turn, one for each cell: a sweep that is stopped leaves whole seeds to compare.

    Raises:
        InputError: if the experiment does not have the scale.
    """
    # A seed that was typed is an override of every job already.
    seeds = [] if "seed" in {_key(override) for override in typed} else seeds_of(config)
    cells: list[list[str]] = []
    for line in lines(config, typed):
        cells += [[*job, *common(config)] for batch in BasicSweeper.split_arguments(line, None) for job in batch]
    listed = [[*cell, seed] for seed in seeds for cell in cells] or cells
    # Typed overrides can make cells equal, as model=resnet20 in a table of several models: such a job runs once.
    parser = OverridesParser.create()
    parsed = {override: parser.parse_override(override) for override in {text for job in listed for text in job}}
    different: dict[Hashable, list[str]] = {}
    for job in listed:
        different.setdefault(_settled([parsed[override] for override in job]), job)
    return list(different.values())


def lines(config: DictConfig, typed: Sequence[str]) -> list[list[Override]]:
    """Merge each line of cells with the scale and the command line; comma-separated values are not yet combined.

    Args:
        config: the configuration that the command line composes to, with Hydra's part.
        typed: the overrides on the command line, without Hydra's own.

    Returns:
        For each line of the chosen scale: the overrides of the scale, the line and the command line. If a key is given
        twice, the last one counts. The line's own keys come first.

    Raises:
        InputError: if the experiment does not have the scale, or a cell names a seed.
    """
    sweeper = config.hydra.sweeper
    scales = OmegaConf.to_container(sweeper.scales)
    assert isinstance(scales, dict)
    if config.scale not in scales:
        allowed = f"{', '.join(map(str, scales))} (this experiment's)"
        raise InputError.of("scale", config.scale, "is not a scale", allowed)
    own = [override for override in typed if _key(override) not in _CONSUMED]
    scale = shlex.split(str(scales[config.scale] or ""))
    found = []
    for text in sweeper.cells:
        # As a shell splits a line, so that a value in quotes may hold blanks.
        cell = shlex.split(str(text))
        if any(_key(override) == "scale" and config.scale not in _values(override) for override in cell):
            continue
        for override in (o for o in cell if _key(o) == "seed"):
            # Each cell is run with the sweep's seeds, which would go before its own.
            allowed = "seeds=3 (how many), or seed=0,1 (which), on the command line"
            raise InputError(f"hydra.sweeper.cells: {override}: would do nothing in a cell; allowed: {allowed}")
        found.append(_last(scale, [override for override in cell if _key(override) != "scale"], own))
    return found


def common(config: DictConfig) -> list[str]:
    """Return the overrides that every job of an experiment has, besides those of its cell and its seed."""
    # The number of seeds is not a setting of a single run. Without it, a job's earlier run is found (`EarlierRuns`)
    # whatever number of seeds that sweep had.
    return [f"scale={config.scale}", "seeds=null"]


def seeds_of(config: DictConfig) -> list[str]:
    """Return the seeds of an experiment as overrides."""
    return [f"seed={seed}" for seed in range(config.seeds or 1)]


def one_per_cell(jobs: Iterable[list[str]]) -> list[list[str]]:
    """Keep one job of those that differ only in the seed."""
    # Enough for a check: of two jobs that differ in the seed alone, one is as correct as the other.
    return list({tuple(o for o in job if not o.startswith("seed=")): job for job in jobs}.values())


def register() -> None:
    """Make the sweeper known to Hydra as `hydra/sweeper: cells`."""
    Plugins.instance().register(ExperimentSweeper)
    node: dict[str, Any] = {
        "_target_": f"{ExperimentSweeper.__module__}.{ExperimentSweeper.__name__}",
        "cells": [],
        "scales": {},
        "tuned": None,
    }
    ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=node, provider="dcrun")


def _cell(job: Sequence[str], tuned: str) -> tuple[str, ...]:
    """Return a job's overrides without the tuned key and the seed."""
    return tuple(override for override in job if _key(override) not in (tuned, "seed"))


def _chosen(ran: Sequence[Job], listed: Sequence[list[str]], tuned: str) -> list[list[str]]:
    """Return the jobs of all seeds but the first, of each cell those with the value that was best.

    Args:
        ran: the first seed's jobs.
        listed: the jobs of all seeds.
        tuned: the key.
    """
    best: dict[tuple[str, ...], tuple[float, tuple[str, ...]]] = {}
    for job in ran:
        summary = job.summary()
        error = summary.get(BEST_VALIDATION_ERROR)
        if error is None and summary.get(STATUS) not in (DIVERGED, None):
            # Nothing to choose by.
            continue
        # A diverged run may have had a good error before.
        worth = math.inf if error is None or job.code != 0 or summary.get(STATUS) == DIVERGED else float(error)
        cell = _cell(job.overrides, tuned)
        if cell not in best or worth < best[cell][0]:
            best[cell] = worth, job.overrides[:-1]
    others = [job for job in listed if job[-1] != FIRST_SEED]
    return [job for job in others if (found := best.get(_cell(job, tuned))) is None or found[1] == tuple(job[:-1])]


def _last(scale: list[str], cell: list[str], own: list[str]) -> list[Override]:
    """Merge overrides: if a key is given twice the last one counts, and the keys of the cell come first."""
    parser = OverridesParser.create()
    last = {o.key_or_group: o for part in (scale, cell, own) for o in parser.parse_overrides(part)}
    leading = [_key(override) for override in (*cell, *own)]
    # A job's name shows its first overrides: those of its cell tell it apart, the scale's are in every job.
    return sorted(last.values(), key=lambda o: leading.index(o.key_or_group) if o.key_or_group in leading else 999)


def _settled(job: Iterable[Override]) -> Hashable:
    """Return the final value of each key of a job: jobs that agree in it are the same, in whatever order of keys."""
    last = {override.key_or_group: override for override in job}
    # Hydra applies the option of a group before any value of its keys, wherever the two stand, so their order is
    # irrelevant. A section that is given as a dictionary is applied where it stands, so that order counts.
    sections = [f"{key}." for key, override in last.items() if isinstance(override.value(), dict)]
    order = tuple(key for key in last if any(f"{key}.".startswith(section) for section in sections))
    return order, frozenset((key, override.type, repr(override.value())) for key, override in last.items())


def _values(override: str) -> list[str]:
    return override.partition("=")[2].split(",")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
