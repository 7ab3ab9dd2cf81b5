"""The sweeper that searches: Optuna proposes settings, each is run (once per seed), and the best is named at the end.

    dcrun hydra/sweeper=optuna 'algorithm.lambda0=tag(log,interval(0.1,10))' schedule.lr=0.25,0.5,1.0
    dcrun hydra/sweeper=optuna hydra.sweeper.sampler=grid algorithm.lambda0=0.5,2,8 seed=0,1
    dcrun hydra/sweeper=optuna hydra.sweeper.n_trials=5 experiment=dc_asgd_icml2017/lambda0_lr

A search goes by the validation error of its runs if they have a validation split (`dataset.validation`); the test error
of what it chose is then measured on samples that had no part in the choice. Without one it goes by the test error.

Values with commas, `range(...)` and `interval(...)` span the space. Several seeds are one trial, judged by their mean.
Each line of an experiment's cells is a search of its own. Sampling is seeded and waits for whole batches: what Optuna
proposes next depends on the results so far, and their order would otherwise depend on which job ends first. So the same
command with `run.resume=true` proposes the same settings again, and goes on where it was stopped.

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
from runner.run_folder.summary_keys import DIVERGED, STATUS
from runner.sweeps.job import Job
from runner.sweeps.objective import OBJECTIVES, warning
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
        cells: the cells of an experiment, as in `runner.sweeps.experiment_sweeper.ExperimentSweeper`.
        scales: its scales.
    """

    def __init__(
        self,
        sampler: str,
        n_trials: int | None,
        metric: str | None,
        seed: int,
        cells: Sequence[str] = (),
        scales: Mapping[str, str] | None = None,
    ) -> None:
        self.sampler, self.n_trials, self.seed = sampler, n_trials, seed
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
                results.append(self._search(space, f"{number}: {space.name}", storage))
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
        for result in results:
            print(_told(result), flush=True)
        return []

    def _search(self, space: Space, name: str, storage: "BaseStorage") -> dict[str, Any]:
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
            jobs = self._run(space, list(batch), limit - len(tried))
            for (point, trial), ran[point] in zip(batch.items(), jobs, strict=True):
                tried[point] = _value(space.metric, ran[point])
                _tell(study, trial, tried[point])
        # Without failed and diverged ones: the best of nothing but infinities is none.
        measured = {point: value for point, value in tried.items() if value is not None and math.isfinite(value)}
        pick = min if space.direction == "minimize" else max
        best = pick(measured, key=lambda point: measured[point], default=None)
        return {
            "name": name,
            "trials": len(tried),
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
        width = min(most, max(1, self.launcher.n_jobs // len(space.seeds)))
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

    def _run(self, space: Space, points: Sequence[Point], limit: int) -> list[Sequence[Job | None]]:
        """Run settings, one job per seed, and return the jobs of each; None for one that was not run."""
        assert self.launcher is not None
        of = [[*space.fixed, *point, *seed] for point in points for seed in space.seeds]
        first, each, before = self.launched, len(space.seeds), len(FreshProcessLauncher.jobs)
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
    job failed or was not run.
    """
    # Infinite, so that no finite value ties with it; Optuna's samplers take it.
    worst = math.inf if OBJECTIVES[metric] == "minimize" else -math.inf
    values = []
    for job in jobs:
        # Not the worst value: a failure says nothing about the setting, and must not steer the search away from it.
        if job is None or job.code != 0:
            return None
        summary = job.summary()
        value = summary.get(metric)
        # A diverged run may have had a good error before, or have ended soon: that must not make it look good.
        values.append(worst if value is None or summary.get(STATUS) == DIVERGED else value)
    return statistics.fmean(values)


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
    head = f"search {result['name']}, {result['trials']} trials"
    if result["best_value"] is None:
        return f"{head}: none has a {result['metric']}"
    best = " ".join(f"{key}={value}" for key, value in result["best_params"].items())
    tested = result.get("test_error")
    its = "" if tested is None else f"; its test error is {tested:.4g}"
    return f"{head}: best {result['metric']} {result['best_value']:.4g} with {best}{its}"
