"""The sweeper that searches: Optuna proposes settings, each is run (once per seed), and the best is named at the end.

    dcrun hydra/sweeper=optuna 'algorithm.lambda0=tag(log,interval(0.1,10))' schedule.lr=0.25,0.5,1.0
    dcrun hydra/sweeper=optuna hydra.sweeper.sampler=grid algorithm.lambda0=0.5,2,8 seed=0,1
    dcrun hydra/sweeper=optuna hydra.sweeper.n_trials=5 experiment=dc_asgd_icml2017/lambda0_lr

A search goes by the validation error of its runs if they have a validation split (`dataset.validation`); the test error
of what it chose is then measured on samples that had no part in the choice. Without one it goes by the test error.

Values with commas, `range(...)` and `interval(...)` span the space. Several seeds are one trial, judged by their mean.
Each line of an experiment's cells is a search of its own. Sampling is seeded and waits for whole batches: what Optuna
proposes next depends on the results so far, and their order would otherwise depend on which job ends first. So the same
command with `run.resume=true` proposes the same settings again, and goes on where it was stopped. A pruner decides by
what is settled in the same way (`sweeps.search_pruning`).

Optuna's records are in `<sweep folder>/optuna.log` (a journal that optuna-dashboard reads), the best settings in
`<sweep folder>/optimization_results.yaml`. Optuna is imported when a search starts, not earlier.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from runner.run_folder import folders
from runner.run_folder.summary_keys import DIVERGED, PRUNED, STATUS
from runner.sweeps.job import Job
from runner.sweeps.objective import OBJECTIVES, warning
from runner.sweeps.search_pruning import NONE, SearchPruning, first_overrides, was_pruned
from runner.sweeps.search_space import Point, Space, spaces
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

_TRIALS = 20
_ASKED = 50  # how often a trial is asked for, as a sampler may propose again what it has proposed before


class OptunaSweeper(Sweeper):
    """Hydra sweeper that runs what Optuna proposes, as many at a time as the launcher allows.

    Args:
        sampler: `tpe`, `random` or `grid`.
        n_trials: how many settings each search tries; None: 20, or all of a grid.
        metric: the number to minimise or maximise, one of `OBJECTIVES`; None: the best validation error of runs that
            have a validation split, else the best test error. Each search has its own (`Space.metric`).
        seed: seed of the sampler.
        pruner: `none`, or which of Optuna's pruners stops runs early, one of `runner.train.pruning.PRUNERS`.
        pruner_options: keyword arguments of Optuna's class.
        cells: the cells of an experiment, as in `runner.sweeps.experiment_sweeper.ExperimentSweeper`.
        scales: its scales.
        tuned: the key whose best value each of its cells has; a search chooses it like any other.
    """

    def __init__(
        self,
        sampler: str,
        n_trials: int | None,
        metric: str | None,
        seed: int,
        pruner: str = NONE,
        pruner_options: Mapping[str, Any] | None = None,
        cells: Sequence[str] = (),
        scales: Mapping[str, str] | None = None,
        tuned: str | None = None,
    ) -> None:
        self.sampler, self.n_trials, self.seed, self.pruner = sampler, n_trials, seed, pruner
        self.config: DictConfig | None = None
        self.launcher: FreshProcessLauncher | None = None
        # Jobs are numbered through all searches of the sweep: each has a folder of its own.
        self.launched = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher. It must be one of this project's: others do not return run folders to read."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )  # type: ignore[assignment]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Search each space to its end, or until the sweep is stopped.

        Args:
            arguments: the overrides that the user typed, without Hydra's own.
        """
        # In functions, here and below: Optuna is an optional package, and `register` runs without it.
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        assert self.config is not None
        # It logs every trial to the terminal, where `announce_job` says the same.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        # Hydra's own sweepers write this file, by which a folder is known to be a sweep's.
        OmegaConf.save(self.config, folder / "multirun.yaml")
        # A new file each time: a search that goes on proposes everything again, and its finished runs are found by
        # their settings.
        storage = JournalStorage(JournalFileBackend(str(folders.free_folder(folder / "optuna.log"))))
        results = []
        searched = spaces(self.config, arguments)
        if (line := warning(space.metric for space in searched)) is not None:
            print(f"dcrun: {line}", file=sys.stderr, flush=True)
        for number, space in enumerate(searched):
            # A search that has not begun leaves no result, but those before it are written all the same.
            if not FreshProcessLauncher.over():
                name = f"{number}: {space.name}"
                pruning = None
                if self.pruner != NONE:
                    pruning = SearchPruning(self.config, space, name, folder / "pruning" / f"{number}-")
                results.append(self._search(space, name, storage, pruning))
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
        for result in results:
            print(_told(result), flush=True)
        return []

    def _search(self, space: Space, name: str, storage: "BaseStorage", pruning: SearchPruning | None) -> dict[str, Any]:
        import optuna  # an optional package

        sampler = self._sampler()
        study = optuna.create_study(storage=storage, study_name=name, direction=space.direction, sampler=sampler)
        # A grid's points are queued; `ask` then hands them out in this order.
        for params in space.points() if self.sampler == "grid" else ():
            study.enqueue_trial(params)
        # Without an interval the space is finite, and no setting is run twice.
        limit = int(min(space.size, self.n_trials or (space.size if self.sampler == "grid" else _TRIALS)))
        tried: dict[Point, float | None] = {}
        ran: dict[Point, Sequence[Job | None]] = {}
        # By what was tried, not by trials: a proposal that comes again costs a trial, but no run.
        while len(tried) < limit and not FreshProcessLauncher.over():
            batch = self._proposed(study, space, tried, limit - len(tried))
            if not batch:
                break
            if pruning is None:
                jobs = self._run(space, list(batch), space.seeds, limit - len(tried))
            else:
                jobs = self._run_pruned(space, study, batch, pruning, limit - len(tried))
            for (point, trial), ran[point] in zip(batch.items(), jobs, strict=True):
                tried[point] = _value(space.metric, ran[point])
                if pruning is None:
                    _tell(study, trial, tried[point])
                else:
                    pruning.tell(study, trial, first_overrides(space, point), ran[point][0], tried[point])
        # Without failed and diverged ones: the best of nothing but infinities is none.
        measured = {point: value for point, value in tried.items() if value is not None and math.isfinite(value)}
        pick = min if space.direction == "minimize" else max
        best = pick(measured, key=lambda point: measured[point], default=None)
        return {
            "name": name,
            "trials": len(tried),
            **({} if pruning is None else {"pruned": sum(_is_pruned(jobs) for jobs in ran.values())}),
            "metric": space.metric,
            "best_value": None if best is None else measured[best],
            "best_params": {} if best is None else dict(override.split("=", 1) for override in best),
            # Only reported: nothing was chosen by it.
            **({} if best is None or space.test_error is None else {"test_error": _mean(space.test_error, ran[best])}),
        }

    def _sampler(self) -> "BaseSampler":
        from optuna.samplers import RandomSampler, TPESampler  # an optional package

        return TPESampler(seed=self.seed) if self.sampler == "tpe" else RandomSampler(seed=self.seed)

    def _proposed(
        self, study: "Study", space: Space, tried: Mapping[Point, float | None], most: int
    ) -> dict[Point, Any]:
        """Ask Optuna for settings that have not been tried, as many as run at a time."""
        assert self.launcher is not None
        # All seeds of a setting run at the same time, so fewer settings do.
        # With a pruner the first seeds run alone.
        seeds = 1 if self.pruner != NONE else len(space.seeds)
        width = min(most, max(1, self.launcher.n_jobs // seeds))
        batch: dict[Point, Any] = {}
        for _ in range(_ASKED * width):
            if len(batch) == width:
                break
            # The whole batch is asked for before its results are told, so no answer depends on which job ends first.
            trial = study.ask(space.distributions())
            point = space.point(trial.params)
            if point in tried:
                _tell(study, trial, tried[point])  # a run would give the same bits again, so its result is known
            # Proposed twice in one batch: its result is not known yet, so the second is told as failed and not run.
            elif point in batch:
                _tell(study, trial, None)
            else:
                batch[point] = trial
        return batch

    def _run_pruned(
        self, space: Space, study: "Study", batch: Mapping[Point, Any], pruning: SearchPruning, limit: int
    ) -> list[Sequence[Job | None]]:
        """Run the first seed of each setting, then the other seeds of those that were not pruned.

        Returns:
            The jobs of each setting; of one whose first run was pruned or failed, that alone.
        """
        assert self.launcher is not None
        trials = {first_overrides(space, point): trial for point, trial in batch.items()}
        self.launcher.variables, self.launcher.is_over = pruning.begin(study, trials), pruning.is_over
        scouts = [jobs[0] for jobs in self._run(space, list(batch), space.seeds[:1], limit)]
        self.launcher.variables = {}
        going = [
            point
            for point, job in zip(batch, scouts, strict=True)
            if job is not None and job.code == 0 and not was_pruned(job.folder)
        ]
        others = space.seeds[1:]
        rest: dict[Point, Sequence[Job | None]] = {point: [None] * len(others) for point in going}
        if others and going and not FreshProcessLauncher.over():
            rest = dict(zip(going, self._run(space, going, others, limit), strict=True))
        return [[job, *rest.get(point, ())] for point, job in zip(batch, scouts, strict=True)]

    def _run(
        self, space: Space, points: Sequence[Point], seeds: Sequence[list[str]], limit: int
    ) -> list[Sequence[Job | None]]:
        """Run settings, one job per seed, and return the jobs of each; None for one that was not run."""
        assert self.launcher is not None
        of = [[*space.fixed, *point, *seed] for point in points for seed in seeds]
        first, each, before = self.launched, len(seeds), len(FreshProcessLauncher.jobs)
        self.launched += len(of)
        # For "job 3 of 40": the sweeper launches in parts, and the launcher knows only the one that it is given.
        self.launcher.expected = max(self.launcher.expected, self.launched, first + limit * each)
        self.launcher.launch(of, initial_job_idx=first)
        # By number, as jobs that were never started have no entry.
        found = {job.number: job for job in FreshProcessLauncher.jobs[before:]}
        jobs = [found.get(number) for number in range(first, self.launched)]
        return [jobs[place : place + each] for place in range(0, len(jobs), each)]


def _value(metric: str, jobs: Sequence[Job | None]) -> float | None:
    """Return the mean over the runs of a setting, one for each seed.

    A run without the number, because it diverged or did not get so far, counts as the worst value there is. None if a
    job failed, was pruned or was not run.
    """
    # Infinite, so that no finite value ties with it; Optuna's samplers take it.
    worst = math.inf if OBJECTIVES[metric] == "minimize" else -math.inf
    values = []
    for job in jobs:
        # Not the worst value: a failure says nothing about the setting, and must not steer the search away from it.
        if job is None or job.code != 0:
            return None
        summary = job.summary()
        # Its best score so far is not that of a whole run.
        if summary.get(STATUS) == PRUNED:
            return None
        value = summary.get(metric)
        # A diverged run may have had a good error before, or have ended soon: that must not make it look good.
        values.append(worst if value is None or summary.get(STATUS) == DIVERGED else value)
    return statistics.fmean(values)


def _is_pruned(jobs: Sequence[Job | None]) -> bool:
    return any(job is not None and was_pruned(job.folder) for job in jobs)


def _mean(key: str, jobs: Sequence[Job | None]) -> float | None:
    """Return the mean of a number over the runs of a setting, None if a run has none."""
    found = [None if job is None else job.summary().get(key) for job in jobs]
    values = [value for value in found if value is not None]
    return statistics.fmean(values) if len(values) == len(jobs) else None


def register() -> None:
    """Make the sweeper known to Hydra; `conf/hydra/sweeper/optuna.yaml` names it."""
    Plugins.instance().register(OptunaSweeper)


def _tell(study: "Study", trial: Any, value: float | None) -> None:
    from optuna.trial import TrialState  # an optional package

    if value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)


def _told(result: Mapping[str, Any]) -> str:
    pruned = f" ({result['pruned']} pruned)" if result.get("pruned") else ""
    head = f"search {result['name']}, {result['trials']} trials{pruned}"
    if result["best_value"] is None:
        return f"{head}: none has a {result['metric']}"
    best = " ".join(f"{key}={value}" for key, value in result["best_params"].items())
    tested = result.get("test_error")
    its = "" if tested is None else f"; its test error is {tested:.4g}"
    return f"{head}: best {result['metric']} {result['best_value']:.4g} with {best}{its}"
