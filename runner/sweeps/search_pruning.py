"""A search with a pruner: what its runs are told, and what Optuna is told of them.

The first seed of a setting is run first and judged (`runner.train.pruning`); the other seeds are run if it was not
pruned, so that settings are compared by runs of one seed, and a bad one costs a part of one run. Settings that run side
by side are not compared with each other: which of them is ahead at a moment depends on the machine.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.run_folder import columns
from runner.run_folder.contents import read_metrics, read_summary
from runner.run_folder.summary_keys import (
    BEST_VALIDATION_ERROR,
    BEST_VALIDATION_LOSS,
    FINAL_VALIDATION_ERROR,
    PRUNED,
    STATUS,
)
from runner.sweeps.job import Job
from runner.sweeps.objective import SPLIT, given
from runner.sweeps.search_space import Point, Space
from runner.train.pruning import PRUNERS, VARIABLE, Judge, PruningFile, Trial, make_pruner

if TYPE_CHECKING:
    from optuna import Study

NONE = "none"
KEY, OPTIONS = "hydra.sweeper.pruner", "hydra.sweeper.pruner_options"
COLUMNS = {
    BEST_VALIDATION_ERROR: columns.VALIDATION_ERROR,
    FINAL_VALIDATION_ERROR: columns.VALIDATION_ERROR,
    BEST_VALIDATION_LOSS: columns.VALIDATION_LOSS,
}
"""Metrics of a search that a pruner can go by, and the column of the metrics that has them at each evaluation."""
EVERY = "run.eval_every"


class SearchPruning:
    """The pruner of one search.

    Args:
        config: what the command line composes to, with Hydra's part.
        space: of the search.
        name: of the search.
        place: where files for its runs go; each has a name that begins so.
    """

    def __init__(self, config: DictConfig, space: Space, name: str, place: Path) -> None:
        self.place = place
        self._known: dict[tuple[str, ...], PruningFile] = {}
        self._kept: dict[int, dict[str, Any]] = {}
        every, epochs = (float(given(config, space.fixed, key)) for key in (EVERY, "run.epochs"))
        options: Any = OmegaConf.to_container(OmegaConf.create(config.hydra.sweeper.get("pruner_options") or {}))
        self._common = {
            "study": name,
            "pruner": str(config.hydra.sweeper.pruner),
            "options": options,
            "column": COLUMNS[space.metric],
            "eval_every": every,
            "steps": math.floor(epochs / every + 1e-9),
        }

    def begin(self, study: "Study", trials: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], dict[str, str]]:
        """Write down what the runs of a batch are judged by.

        Args:
            study: of the search.
            trials: Optuna's trial of each run, by the run's overrides.

        Returns:
            The variables that tell each run of it.
        """
        self._known, told = {}, {}
        all_trials = study.trials
        for overrides, trial in trials.items():
            before = [self._settled(other) for other in all_trials[: trial.number]]
            self._known[overrides] = known = PruningFile(**self._common, trials=before)
            path = self.place.with_name(f"{self.place.name}{trial.number}.json").absolute()
            known.write(path)
            told[overrides] = {VARIABLE: str(path)}
        return told

    def is_over(self, overrides: tuple[str, ...], folder: Path) -> bool:
        """Return whether an earlier run, pruned then, would be pruned again: nothing is left to do."""
        known = self._known.get(overrides)
        return known is not None and was_pruned(folder) and Judge(known).prunes(read_metrics(folder))

    def tell(
        self, study: "Study", trial: Any, overrides: tuple[str, ...], job: Job | None, value: float | None
    ) -> None:
        """Tell Optuna how a setting's runs ended.

        Args:
            study: of the search.
            trial: of the setting.
            overrides: of its first run.
            job: that run; None if it was not run.
            value: the mean over the seeds; None if it was pruned, a run failed or was not run.
        """
        from optuna.trial import TrialState  # an optional package

        if job is None or job.code != 0:
            study.tell(trial, state=TrialState.FAIL)
            return
        pruned = was_pruned(job.folder)
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        judge = Judge(self._known[overrides])
        judge.prunes(read_metrics(job.folder))
        own = judge.trial(state.name, value)
        for step, score in own.reported:
            trial.report(score, step)
        # Noted by the pruner in the run's own study, and asked for when later runs are judged.
        self._kept[trial.number] = own.kept
        study.tell(trial, value if state is TrialState.COMPLETE else None, state=state)

    def _settled(self, trial: Any) -> Trial:
        """Return what later runs may know of a trial; of one that goes on beside them nothing."""
        if not trial.state.is_finished():
            return Trial("FAIL")
        reported = sorted(trial.intermediate_values.items())
        # The value of a trial that was pruned is Optuna's own: the last score.
        value = trial.value if trial.state.name == "COMPLETE" else None
        return Trial(trial.state.name, value, reported, self._kept.get(trial.number, {}))


def was_pruned(folder: Path) -> bool:
    """Return whether the run in a folder was stopped by a pruner."""
    try:
        return read_summary(folder).get(STATUS) == PRUNED
    except (OSError, ValueError):
        return False


def check(config: DictConfig, searched: Sequence[Space]) -> None:
    """Refuse a pruner that there is not, or that has nothing to go by; Optuna's own checks are `check_options`.

    Args:
        config: what the command line composes to, with Hydra's part.
        searched: the spaces, with their metrics.

    Raises:
        InputError: naming the key.
    """
    pruner, options = config.hydra.sweeper.get("pruner", NONE), config.hydra.sweeper.get("pruner_options")
    if pruner not in (NONE, *PRUNERS):
        raise InputError.of(KEY, pruner, "is not a pruner", ", ".join((NONE, *PRUNERS)))
    if not (options is None or isinstance(options, DictConfig)):
        raise InputError.of(OPTIONS, options, "are no options", "as {n_startup_trials: 3}, or null")
    if pruner == NONE:
        if options:
            raise InputError.of(OPTIONS, options, "would do nothing", f"with {KEY}={', '.join(PRUNERS)}")
        return
    for space in searched:
        if space.metric not in COLUMNS:
            # Refused, not warned of: each evaluation of each run would decide by what nothing may be decided by.
            what = f"would stop runs by {space.metric}, which is not of a validation split"
            raise InputError.of(KEY, pruner, what, f"with {SPLIT}=0.1 and hydra.sweeper.metric of that split; {NONE}")
        if EVERY in {key.lstrip("+") for key in (*space.choices, *space.intervals)}:
            raise InputError(
                f"{EVERY}: cannot be searched with {KEY}={pruner}, which compares evaluations; allowed: one value"
            )
    target = str(config.hydra.launcher.get("_target_", ""))
    if target.endswith("SubmititLauncher"):
        chosen = config.hydra.runtime.choices.get("hydra/launcher")
        raise InputError.of(
            KEY, pruner, f"jobs of hydra/launcher={chosen} cannot be pruned", f"{NONE}, or this machine's launcher"
        )


def check_options(config: DictConfig) -> None:
    """Refuse options that Optuna does not take.

    Args:
        config: of a job of a search, with Hydra's part.

    Raises:
        InputError: naming the key, and what Optuna says.
    """
    pruner, options = config.hydra.sweeper.get("pruner", NONE), config.hydra.sweeper.get("pruner_options")
    if pruner == NONE:
        return
    plain: Any = OmegaConf.to_container(OmegaConf.create(options or {}))
    try:
        make_pruner(pruner, plain, 1)
    except (TypeError, ValueError) as error:
        said = str(error).rpartition("__init__() ")[2]
        raise InputError.of(
            OPTIONS, plain, f"Optuna says: {said}", f"arguments of its {pruner} pruner, or null"
        ) from error


def first_overrides(space: Space, point: Point) -> tuple[str, ...]:
    """Return the overrides of a setting's first run."""
    return (*space.fixed, *point, *space.seeds[0])
