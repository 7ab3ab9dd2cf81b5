"""The sweeper that searches: Optuna proposes settings, each is a run (or one per seed), the best is told at the end.

    dcrun hydra/sweeper=optuna 'algorithm.lambda0=tag(log,interval(0.1,10))' schedule.lr=0.25,0.5,1.0
    dcrun hydra/sweeper=optuna hydra.sweeper.sampler=grid algorithm.lambda0=0.5,2,8 seed=0,1
    dcrun hydra/sweeper=optuna hydra.sweeper.n_trials=5 experiment=dc_asgd_icml2017/lambda0_lr

Values with commas, `range(...)` and `interval(...)` span the space; several seeds are one trial, judged by their mean.
Of an experiment each line of cells is a search of its own. Sampling is seeded and waits for whole batches, so the same
command with `run.resume=true` proposes the same settings and goes on where it was stopped.

Optuna's records lie in `<sweep folder>/optuna.log` (a journal that optuna-dashboard reads), the best settings in
`<sweep folder>/optimization_results.yaml`. Optuna is imported when a search starts, not earlier.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from runner.run_folder import folders
from runner.sweeps.job import Job
from runner.sweeps.search_space import OBJECTIVES, Point, Space, spaces
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

_TRIALS = 20
_ASKED = 50  # times per trial, of a sampler that proposes what it has proposed before


class OptunaSweeper(Sweeper):
    """Hydra sweeper: runs what Optuna proposes, as many at a time as the launcher takes.

    Args:
        sampler: `tpe`, `random`, `grid`.
        n_trials: how many settings to try, per search; None: 20, all of a grid.
        metric: what to go by, one of `OBJECTIVES`.
        seed: of the sampler.
        cells: of an experiment, as of `runner.sweeps.experiment_sweeper.ExperimentSweeper`.
        scales: likewise.
    """

    def __init__(
        self,
        sampler: str,
        n_trials: int | None,
        metric: str,
        seed: int,
        cells: Sequence[str] = (),
        scales: Mapping[str, str] | None = None,
    ) -> None:
        self.sampler, self.n_trials, self.metric, self.seed = sampler, n_trials, metric, seed
        self.direction: Literal["minimize", "maximize"] = OBJECTIVES[metric]
        self.worst = math.inf if self.direction == "minimize" else -math.inf
        self.config: DictConfig | None = None
        self.launcher: FreshProcessLauncher | None = None
        self.launched = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher ready; any other than this project's would return no runs to read."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )  # type: ignore[assignment]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Search each space to its end, or until the sweep is stopped.

        Args:
            arguments: the overrides that the user typed, Hydra's own left out.
        """
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        assert self.config is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        storage = JournalStorage(JournalFileBackend(str(folders.free_folder(folder / "optuna.log"))))
        results = []
        for number, space in enumerate(spaces(self.config, arguments)):
            if not FreshProcessLauncher.over():
                results.append(self._search(space, f"{number}: {space.name}", storage))
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
        for result in results:
            print(_told(result), flush=True)
        return []

    def _search(self, space: Space, name: str, storage: "BaseStorage") -> dict[str, Any]:
        import optuna

        study = optuna.create_study(storage=storage, study_name=name, direction=self.direction, sampler=self._sampler())
        for params in space.points() if self.sampler == "grid" else ():
            study.enqueue_trial(params)
        limit = int(min(space.size, self.n_trials or (space.size if self.sampler == "grid" else _TRIALS)))
        tried: dict[Point, float | None] = {}
        while len(tried) < limit and not FreshProcessLauncher.over():
            batch = self._proposed(study, space, tried, limit - len(tried))
            if not batch:
                break
            for (point, trial), value in zip(
                batch.items(), self._measure(space, list(batch), limit - len(tried)), strict=True
            ):
                tried[point] = value
                _tell(study, trial, value)
        measured = {point: value for point, value in tried.items() if value is not None and math.isfinite(value)}
        pick = min if self.direction == "minimize" else max
        best = pick(measured, key=lambda point: measured[point], default=None)
        return {
            "name": name,
            "trials": len(tried),
            "metric": self.metric,
            "best_value": None if best is None else measured[best],
            "best_params": {} if best is None else dict(override.split("=", 1) for override in best),
        }

    def _sampler(self) -> "BaseSampler":
        from optuna.samplers import RandomSampler, TPESampler

        return TPESampler(seed=self.seed) if self.sampler == "tpe" else RandomSampler(seed=self.seed)

    def _proposed(
        self, study: "Study", space: Space, tried: Mapping[Point, float | None], most: int
    ) -> dict[Point, Any]:
        """Ask for settings that have not been tried, as many as run at a time."""
        assert self.launcher is not None
        width = min(most, max(1, self.launcher.n_jobs // len(space.seeds)))
        batch: dict[Point, Any] = {}
        for _ in range(_ASKED * width):
            if len(batch) == width:
                break
            trial = study.ask(space.distributions())
            point = space.point(trial.params)
            if point in tried:
                _tell(study, trial, tried[point])  # the same bits again: what a run would find is known
            elif point in batch:
                _tell(study, trial, None)
            else:
                batch[point] = trial
        return batch

    def _measure(self, space: Space, points: Sequence[Point], limit: int) -> list[float | None]:
        """Run settings, one job per seed.

        Returns:
            The mean over the seeds for each setting: the worst there is where a run has no such number, because it
            diverged or never came so far; None where a job failed or was not run.
        """
        assert self.launcher is not None
        of = [[*space.fixed, *point, *seed] for point in points for seed in space.seeds]
        first, each, before = self.launched, len(space.seeds), len(FreshProcessLauncher.jobs)
        self.launched += len(of)
        self.launcher.expected = max(self.launcher.expected, self.launched, first + limit * each)
        self.launcher.launch(of, initial_job_idx=first)
        found = {job.number: job for job in FreshProcessLauncher.jobs[before:]}
        jobs = [found.get(number) for number in range(first, self.launched)]
        return [self._value(jobs[place : place + each]) for place in range(0, len(jobs), each)]

    def _value(self, jobs: Sequence[Job | None]) -> float | None:
        values = []
        for job in jobs:
            if job is None or job.code != 0:
                return None
            summary = job.summary()
            value = summary.get(self.metric)
            # What a run that diverged reached before, or how soon it ended, is nothing to go by.
            values.append(self.worst if value is None or summary.get("status") == "diverged" else value)
        return statistics.fmean(values)


def register() -> None:
    """Make the sweeper known to Hydra; `conf/hydra/sweeper/optuna.yaml` names it."""
    Plugins.instance().register(OptunaSweeper)


def _tell(study: "Study", trial: Any, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)


def _told(result: Mapping[str, Any]) -> str:
    head = f"search {result['name']}, {result['trials']} trials"
    if result["best_value"] is None:
        return f"{head}: none has a {result['metric']}"
    best = " ".join(f"{key}={value}" for key, value in result["best_params"].items())
    return f"{head}: best {result['metric']} {result['best_value']:.4g} with {best}"
