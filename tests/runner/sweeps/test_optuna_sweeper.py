import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from runner.cli.compose import CONF
from runner.sweeps.job import Job
from runner.sweeps.objective import OBJECTIVES, REPORTED
from runner.sweeps.optuna_sweeper import OptunaSweeper
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

optuna = pytest.importorskip("optuna", reason='pip install -e ".[optuna]"')

Finds = Callable[[dict[str, str]], dict[str, object] | None]


class Launcher(FreshProcessLauncher):
    """Runs nothing: what a run finds is computed. None stands for a run that failed."""

    def __init__(self, folder: Path, finds: Finds, n_jobs: int = 1) -> None:
        super().__init__(n_jobs)
        self.folder, self.finds, self.batches = folder, finds, []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list:
        self.batches.append([" ".join(overrides) for overrides in job_overrides])
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            found = self.finds(dict(override.split("=", 1) for override in overrides))
            folder = self.folder / str(number)
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text(json.dumps(found or {"status": "failed"}))
            FreshProcessLauncher.jobs.append(Job(number, tuple(overrides), folder, 1 if found is None else 0))
        return []


@pytest.fixture(autouse=True)
def no_jobs() -> Iterator[None]:
    FreshProcessLauncher.jobs.clear()
    yield
    FreshProcessLauncher.jobs.clear()
    FreshProcessLauncher.stopped_by = None


def search(
    folder: Path, finds: Finds, *typed: str, n_jobs: int = 1, cells: Sequence[str] = (), **own: object
) -> tuple[Launcher, list[dict]]:
    settings = {"sampler": "tpe", "n_trials": None, "metric": None, "seed": 0, **own}
    if cells:
        settings |= {"cells": list(cells), "scales": {"quick": ""}}
    sweeper = OptunaSweeper(**settings)  # type: ignore[arg-type]
    hydra = {"sweeper": settings, "sweep": {"dir": str(folder)}}
    sweeper.config = OmegaConf.create({"scale": "quick", "seeds": None, "hydra": hydra})
    sweeper.launcher = launcher = Launcher(folder, finds, n_jobs)
    sweeper.sweep(list(typed))
    return launcher, yaml.safe_load((folder / "optimization_results.yaml").read_text())


def parabola(job: dict[str, str]) -> dict[str, object]:
    return {"best_test_error": 10 + (float(job["algorithm.lambda0"]) - 2) ** 2}


def test_grid_tries_each_point_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ("algorithm=dc_asgd_a", "algorithm.lambda0=0.5,2,8", "schedule.lr=0.1,0.2")
    launcher, (result,) = search(tmp_path, parabola, *typed, sampler="grid")
    points = [job for batch in launcher.batches for job in batch]
    assert len(points) == len(set(points)) == 6
    assert (result["trials"], result["best_value"]) == (6, 10.0)
    assert result["best_params"]["algorithm.lambda0"] == "2"
    assert "search 0: algorithm=dc_asgd_a, 6 trials: best best_test_error 10 with algorithm.lambda0=2" in (
        capsys.readouterr().out
    )


def test_tpe_comes_nearer_than_its_first_guesses(tmp_path: Path) -> None:
    typed = "algorithm.lambda0=interval(0,10)"
    guesses = search(tmp_path / "a", parabola, typed, n_trials=8, sampler="random")[1][0]["best_value"]
    assert search(tmp_path / "b", parabola, typed, n_trials=30)[1][0]["best_value"] < min(guesses, 10.5)


def test_proposals_are_seeded_and_batched(tmp_path: Path) -> None:
    typed = ("algorithm.lambda0=interval(0,10)", "schedule.lr=0.1,0.2")
    first, _ = search(tmp_path / "a", parabola, *typed, n_trials=13, n_jobs=2)
    assert [len(batch) for batch in first.batches] == [2] * 6 + [1]
    assert search(tmp_path / "b", parabola, *typed, n_trials=13, n_jobs=2)[0].batches == first.batches
    assert search(tmp_path / "c", parabola, *typed, n_trials=13, n_jobs=2, seed=1)[0].batches != first.batches


def test_seeds_are_judged_by_their_mean(tmp_path: Path) -> None:
    def finds(job: dict[str, str]) -> dict[str, object]:
        return {"best_test_error": {"1": 20, "2": 10}[job["algorithm.lambda0"]] + float(job["seed"])}

    launcher, (result,) = search(tmp_path, finds, "algorithm.lambda0=1,2", "seed=0,4", sampler="grid", n_jobs=2)
    assert [len(batch) for batch in launcher.batches] == [2, 2]
    assert (result["trials"], result["best_value"]) == (2, 12.0)


def test_trials_without_a_number_are_worst(tmp_path: Path) -> None:
    def finds(job: dict[str, str]) -> dict[str, object] | None:
        return {"1": None, "2": {"status": "diverged"}, "3": {"best_test_error": 90.0}}[job["algorithm.lambda0"]]

    _, (result,) = search(tmp_path, finds, "algorithm.lambda0=1,2,3", sampler="grid")
    assert (result["best_value"], result["best_params"]) == (90.0, {"algorithm.lambda0": "3"})
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.log")))
    (study,) = optuna.get_all_study_summaries(storage)
    states = [trial.state.name for trial in optuna.load_study(study_name=study.study_name, storage=storage).trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.parametrize("metric", list(OBJECTIVES))
def test_diverged_trial_is_worst(tmp_path: Path, metric: str) -> None:
    better = {"minimize": 1.0, "maximize": 99.0}[OBJECTIVES[metric]]

    def finds(job: dict[str, str]) -> dict[str, object]:
        found = {"1": ("diverged", better), "2": ("completed", 50.0)}[job["algorithm.lambda0"]]
        return {"status": found[0], metric: found[1]}

    split = ["dataset.validation=0.1"] if metric in REPORTED else []
    _, (result,) = search(tmp_path, finds, "algorithm.lambda0=1,2", *split, sampler="grid", metric=metric)
    assert (result["best_value"], result["best_params"]) == (50.0, {"algorithm.lambda0": "2"})


def test_search_goes_by_the_validation_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def finds(job: dict[str, str]) -> dict[str, object]:
        number = float(job["algorithm.lambda0"]) + float(job["seed"])
        return {
            "best_validation_error": number,
            "best_test_error": -number,
            "test_error_at_best_validation": 9 - number,
        }

    typed = ("algorithm.lambda0=1,2,3", "seed=0,1")
    _, (result,) = search(tmp_path / "a", finds, *typed, "dataset.validation=500", sampler="grid")
    assert (result["metric"], result["best_value"]) == ("best_validation_error", 1.5)
    assert (result["best_params"], result["test_error"]) == ({"algorithm.lambda0": "1"}, 7.5)
    told = capsys.readouterr()
    assert "best best_validation_error 1.5 with algorithm.lambda0=1; its test error" in told.out
    assert told.err == ""
    _, (result,) = search(tmp_path / "b", finds, *typed, sampler="grid")
    assert (result["metric"], result["best_value"], "test_error" in result) == ("best_test_error", -3.5, False)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("dcrun: hydra.sweeper.metric=best_test_error: settings are chosen on the test set")
    assert "dataset.validation=0.1" in err


def test_best_without_test_samples_has_no_test_error(tmp_path: Path) -> None:
    typed = ("algorithm.lambda0=1,2", "dataset.validation=0.1")
    _, (result,) = search(tmp_path, lambda job: {"best_validation_error": 3.0}, *typed, sampler="grid")
    assert (result["best_value"], result["test_error"]) == (3.0, None)


def test_more_can_be_better(tmp_path: Path) -> None:
    def finds(job: dict[str, str]) -> dict[str, object]:
        return {"samples_per_second": float(job["run.threads"])}

    _, (result,) = search(tmp_path, finds, "run.threads=1,2,4", sampler="grid", metric="samples_per_second")
    assert result["best_value"] == 4


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_finite_space_ends_the_search(sampler: str, tmp_path: Path) -> None:
    launcher, (result,) = search(tmp_path, parabola, "algorithm.lambda0=1,2,3,4,5", n_trials=50, sampler=sampler)
    # What is proposed once more does not run again.
    points = sorted(job for batch in launcher.batches for job in batch)
    assert points == [f"algorithm.lambda0={value}" for value in range(1, 6)]
    assert result["trials"] == 5


def test_each_line_of_cells_is_a_search(tmp_path: Path) -> None:
    cells = ["algorithm=dc_asgd_a algorithm.lambda0=1,2", "algorithm=dc_asgd_c algorithm.lambda0=2,3"]
    launcher, results = search(tmp_path, parabola, cells=cells)
    assert [result["name"] for result in results] == ["0: algorithm=dc_asgd_a", "1: algorithm=dc_asgd_c"]
    assert [job.number for job in FreshProcessLauncher.jobs] == [0, 1, 2, 3]
    assert all("scale=quick seeds=null" in job and "seed=0" in job for batch in launcher.batches for job in batch)


def test_a_stopped_sweep_proposes_nothing_more(tmp_path: Path) -> None:
    def finds(job: dict[str, str]) -> None:
        FreshProcessLauncher.stopped_by = 15

    launcher, results = search(tmp_path, finds, cells=["algorithm.lambda0=1,2", "algorithm.lambda0=3,4"])
    assert len(launcher.batches) == 1
    assert len(results) == 1


# Stands in for runner.train.dispatch in every process of a test.
STAND_IN = """
import json, sys, types

def dispatch(cfg, folder):
    name = "best_test_error" if cfg.dataset.validation is None else "best_validation_error"
    facts = {"status": "completed", name: abs(cfg.algorithm.lambda0 - 2)}
    (folder / "summary.json").write_text(json.dumps(facts))
    return 0

module = types.ModuleType("runner.train.dispatch")
module.dispatch = dispatch
sys.modules["runner.train.dispatch"] = module
"""


@pytest.mark.slow
def test_a_search_runs_and_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STAND_IN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CONF.parent)])}

    def dcrun(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner.cli", "hydra/sweeper=optuna", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    space = ("algorithm.lambda0=tag(log,interval(0.1,10))", "dataset.validation=0.1")
    done = dcrun(*space, "hydra.sweeper.n_trials=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all runs, 3 trials: best best_validation_error" in done.stdout
    again = dcrun(*space, "hydra.sweeper.n_trials=4", "run.resume=true")
    assert (again.returncode, again.stdout.count("finished before, in ")) == (0, 3)
    assert len(list(tmp_path.glob("outputs/dcrun/*/*/summary.json"))) == 4
    grid = dcrun("algorithm.lambda0=1,2,4", "hydra.sweeper.sampler=grid", "hydra.launcher.n_jobs=3")
    assert "best best_test_error 0 with algorithm.lambda0=2" in grid.stdout
    assert "settings are chosen on the test set" in grid.stderr


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["hydra/sweeper=optuna", "algorithm.lambda0=1,2"], "hydra/sweeper=optuna: needs the package optuna, which"),
        (["-m", "hydra/launcher=slurm", "seed=0,1"], "hydra/launcher=slurm: needs the package submitit, which"),
    ],
)
def test_a_missing_extra_is_one_line(tmp_path: Path, typed: list[str], message: str) -> None:
    hide = "import sys\nfor name in ('optuna', 'submitit'):\n    sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CONF.parent)])}
    command = [sys.executable, "-m", "runner.cli", *typed]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
    assert f"pip install {message.split()[4].rstrip(',')} first" in done.stderr
    assert not (tmp_path / "outputs").exists()
