import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from runner.config.errors import InputError
from runner.run_folder.contents import read_metrics
from runner.sweeps.job import Job
from runner.sweeps.optuna_sweeper import OptunaSweeper
from runner.sweeps.search_pruning import check, check_options
from runner.sweeps.search_space import Space, spaces
from runner.sweeps.subprocess_launcher import FreshProcessLauncher
from runner.train.pruning import PRUNERS, VARIABLE, Judge, PruningFile

optuna = pytest.importorskip("optuna", reason='pip install -e ".[optuna]"')
EPOCHS = 4


@pytest.fixture(autouse=True)
def no_jobs() -> Any:
    FreshProcessLauncher.jobs.clear()
    yield
    FreshProcessLauncher.jobs.clear()


class Launcher(FreshProcessLauncher):
    """Runs as a process of the launcher does, with curves that follow from the rate and the seed."""

    def __init__(self, folder: Path, n_jobs: int, earlier: dict[tuple[str, ...], Path]) -> None:
        super().__init__(n_jobs)
        self.folder, self.runs, self.batches, self.evaluated = folder, earlier, [], 0

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list:
        self.batches.append([" ".join(overrides) for overrides in job_overrides])
        # Backwards: what a run is told must not depend on which of a batch ends first.
        for number, overrides in reversed(list(enumerate(map(tuple, job_overrides), start=initial_job_idx))):
            folder = self.folder / str(number)
            before = self.runs.get(overrides)
            if before is not None and (done(before) == "completed" or self.is_over(overrides, before)):
                folder = before
            else:
                self._train(folder, overrides)
            self.runs[overrides] = folder
            FreshProcessLauncher.jobs.append(Job(number, overrides, folder, 0))
        return []

    def _train(self, folder: Path, overrides: tuple[str, ...]) -> None:
        values = dict(override.split("=", 1) for override in overrides)
        told = self.variables.get(overrides)
        judge = None if told is None else Judge(PruningFile.read(Path(told[VARIABLE])))
        rows: list[dict[str, Any]] = []
        status = "completed"
        for epoch in range(1, EPOCHS + 1):
            error = abs(float(values["schedule.lr"]) - 2) + 10 / epoch + float(values.get("seed", 0))
            rows.append({"epoch": float(epoch), "validation_error": error})
            self.evaluated += 1
            if epoch < EPOCHS and judge is not None and judge.prunes(rows):
                status = "pruned"
                break
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "summary.json").write_text(json.dumps({"status": status, "best_validation_error": error}))


def done(folder: Path) -> str:
    return json.loads((folder / "summary.json").read_text())["status"]


def search(
    folder: Path, *typed: str, n_jobs: int = 1, earlier: dict[tuple[str, ...], Path] | None = None, **own: Any
) -> tuple[Launcher, dict[str, Any]]:
    settings = {"sampler": "grid", "n_trials": None, "metric": None, "seed": 0, "pruner": "none", **own}
    sweeper = OptunaSweeper(**settings)
    sections = {"run": {"epochs": EPOCHS, "eval_every": 1}, "dataset": {"validation": 0.1}}
    sweeper.config = OmegaConf.create({"hydra": {"sweeper": settings, "sweep": {"dir": str(folder)}}, **sections})
    sweeper.launcher = launcher = Launcher(folder, n_jobs, {} if earlier is None else earlier)
    sweeper.sweep(list(typed))
    (result,) = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    return launcher, result


RATES = "schedule.lr=2,3,9,1,8,2.5,7,0.5"
MEDIAN = {"pruner": "median", "pruner_options": {"n_startup_trials": 2}}


def test_pruned_settings_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, whole = search(tmp_path / "plain", RATES)
    launcher, result = search(tmp_path / "pruned", RATES, **MEDIAN)
    assert (plain.evaluated, whole["best_params"]) == (8 * EPOCHS, result["best_params"])
    assert launcher.evaluated < plain.evaluated
    assert (result["trials"], result["pruned"]) == (
        8,
        sum(done(job.folder) == "pruned" for job in FreshProcessLauncher.jobs[8:]),
    )
    assert "8 trials (5 pruned): best" in capsys.readouterr().out
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "pruned" / "optuna.log"))
    )
    study = optuna.load_study(study_name="0: all runs", storage=storage)
    assert sorted(trial.state.name for trial in study.trials) == ["COMPLETE"] * 3 + ["PRUNED"] * 5
    assert list(study.trials[0].intermediate_values) == [1, 2, 3, 4], "the dashboard draws them"


def test_other_seeds_run_only_if_the_first_did(tmp_path: Path) -> None:
    launcher, result = search(tmp_path, RATES, "seed=0,4", n_jobs=2, **MEDIAN)
    assert launcher.batches[:2] == [
        ["schedule.lr=2 seed=0", "schedule.lr=3 seed=0"],
        ["schedule.lr=2 seed=4", "schedule.lr=3 seed=4"],
    ]
    pruned = {str(job.overrides[0]) for job in FreshProcessLauncher.jobs if done(job.folder) == "pruned"}
    assert len(pruned) == result["pruned"] > 0
    told = [job for batch in launcher.batches for job in batch if job.endswith("seed=4")]
    assert len(told) == 8 - len(pruned)
    assert not any(job.startswith(tuple(pruned)) for job in told)
    assert result["best_value"] == pytest.approx(2.5 + 2), "the mean over both seeds"


@pytest.mark.parametrize(
    ("pruner", "n_jobs"),
    [
        ("hyperband", 3),
        *(
            pytest.param(pruner, n_jobs, marks=pytest.mark.slow)
            for pruner in PRUNERS
            for n_jobs in (1, 3)
            if (pruner, n_jobs) != ("hyperband", 3)
        ),
    ],
)
def test_a_repeated_search_repeats_its_decisions(pruner: str, n_jobs: int, tmp_path: Path) -> None:
    typed = ("schedule.lr=interval(0.1,9.0)",)
    own: dict[str, Any] = {"sampler": "tpe", "n_trials": 14, "pruner": pruner, "n_jobs": n_jobs}
    first, found = search(tmp_path / "first", *typed, **own)
    assert 0 < found["pruned"] < 14
    again, same = search(tmp_path / "again", *typed, **own)
    assert (again.batches, again.evaluated, same) == (first.batches, first.evaluated, found)
    # Stopped after five settings and continued: what was pruned is not run again.
    earlier: dict[tuple[str, ...], Path] = {}
    begun, _ = search(tmp_path / "begun", *typed, **{**own, "n_trials": 5}, earlier=earlier)
    resumed, same = search(tmp_path / "resumed", *typed, **own, earlier=earlier)
    assert (resumed.batches, same) == (first.batches, found)
    assert resumed.evaluated + begun.evaluated >= first.evaluated > resumed.evaluated


def test_another_pruner_decides_for_itself(tmp_path: Path) -> None:
    earlier: dict[tuple[str, ...], Path] = {}
    search(tmp_path / "strict", RATES, **MEDIAN, earlier=earlier)
    _, result = search(tmp_path / "lenient", RATES, earlier=earlier, pruner="median")
    # It waits for five whole runs, so those that the other one pruned before are made whole.
    assert result["pruned"] < 5
    assert sum(done(folder) == "completed" for folder in earlier.values()) == 8 - result["pruned"]


def test_without_a_pruner_pruned_runs_go_on(tmp_path: Path) -> None:
    earlier: dict[tuple[str, ...], Path] = {}
    search(tmp_path / "pruned", RATES, **MEDIAN, earlier=earlier)
    assert any(done(folder) == "pruned" for folder in earlier.values())
    _, result = search(tmp_path / "whole", RATES, earlier=earlier)
    assert {len(read_metrics(folder)) for folder in earlier.values()} == {EPOCHS}
    assert "pruned" not in result


def config(*typed: str, launcher: str = "runner.sweeps.subprocess_launcher.FreshProcessLauncher", **own: Any) -> Any:
    sweeper = {"sampler": "tpe", "n_trials": None, "metric": None, "seed": 0, **own}
    hydra = {
        "sweeper": sweeper,
        "launcher": {"_target_": launcher},
        "runtime": {"choices": {"hydra/launcher": "slurm"}},
    }
    return OmegaConf.create({"hydra": hydra, "dataset": {"validation": None}, "run": {"timing_only": False}})


@pytest.mark.parametrize(
    ("typed", "own", "message"),
    [
        ((), {"pruner": "medn"}, "hydra.sweeper.pruner=medn: is not a pruner; allowed: none, median"),
        ((), {"pruner": "median"}, "would stop runs by best_test_error, which is not of a validation split"),
        (("dataset.validation=0.1",), {"pruner": "median", "metric": "seconds"}, "would stop runs by seconds"),
        ((), {"pruner_options": {"percentile": 5}}, "would do nothing; allowed: with hydra.sweeper.pruner=median"),
        ((), {"pruner": "median", "pruner_options": 3}, "hydra.sweeper.pruner_options=3: are no options"),
        (("dataset.validation=0.1", "run.eval_every=1,2"), {"pruner": "median"}, "run.eval_every: cannot be searched"),
        (
            ("dataset.validation=0.1",),
            {"pruner": "median", "launcher": "runner.sweeps.submitit_launcher.SubmititLauncher"},
            "jobs of hydra/launcher=slurm cannot be pruned",
        ),
    ],
)
def test_pruners_that_cannot_decide_are_refused(typed: tuple[str, ...], own: dict[str, Any], message: str) -> None:
    asked = config(**own)
    searched: list[Space] = spaces(asked, ["schedule.lr=1,2", *typed])
    with pytest.raises(InputError) as error:
        check(asked, searched)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_options_are_those_of_optunas_class() -> None:
    check_options(config(pruner="percentile", pruner_options={"percentile": 40.0, "n_startup_trials": 2}))
    with pytest.raises(
        InputError, match=r"pruner_options=.*Optuna says: .*'n_start'; allowed: arguments of its median"
    ):
        check_options(config(pruner="median", pruner_options={"n_start": 2}))
