import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from runner.cli.compose import CONF
from runner.config.errors import InputError
from runner.sweeps import experiment_sweeper
from runner.sweeps.job import Job
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

EXPERIMENT = """
# @package _global_
defaults:
  - override /algorithm: sgd
  - override /hydra/sweeper: cells
  - _self_
scale: quick
seeds: 2
run: {name: a_paper, resume: true}
hydra:
  mode: MULTIRUN
  sweeper:
    cells:
      - algorithm=sgd
      - algorithm=asgd,ssgd cluster.workers=2
    scales: {paper: run.epochs=9 schedule.lr=0.5, quick: run.epochs=3}
"""

# Stands in for runner.train.dispatch in every process of a test.
STAND_IN = """
import json, sys, types

def dispatch(cfg, folder):
    facts = {"status": "completed", "algorithm": cfg.names.algorithm, "workers": cfg.cluster.workers, "seed": cfg.seed,
             "scale": cfg.scale, "seeds": cfg.seeds, "epochs": cfg.run.epochs}
    (folder / "summary.json").write_text(json.dumps(facts))
    return 0

module = types.ModuleType("runner.train.dispatch")
module.dispatch = dispatch
sys.modules["runner.train.dispatch"] = module
"""


def jobs(*typed: str, scale: str = "quick", seeds: int | None = 2) -> list[str]:
    sweeper = OmegaConf.create(EXPERIMENT).hydra.sweeper
    config = OmegaConf.create({"scale": scale, "seeds": seeds, "hydra": {"sweeper": sweeper}})
    return [" ".join(job) for job in experiment_sweeper.jobs(config, typed)]


def test_a_job_per_cell_and_seed() -> None:
    assert jobs() == [
        "algorithm=sgd run.epochs=3 scale=quick seeds=null seed=0",
        "algorithm=asgd cluster.workers=2 run.epochs=3 scale=quick seeds=null seed=0",
        "algorithm=ssgd cluster.workers=2 run.epochs=3 scale=quick seeds=null seed=0",
        "algorithm=sgd run.epochs=3 scale=quick seeds=null seed=1",
        "algorithm=asgd cluster.workers=2 run.epochs=3 scale=quick seeds=null seed=1",
        "algorithm=ssgd cluster.workers=2 run.epochs=3 scale=quick seeds=null seed=1",
    ]


def test_scale_is_taken_or_refused() -> None:
    assert jobs("scale=paper", scale="paper", seeds=1)[0] == (
        "algorithm=sgd run.epochs=9 schedule.lr=0.5 scale=paper seeds=null seed=0"
    )
    with pytest.raises(InputError, match="scale=huge: is not a scale; allowed: paper, quick"):
        jobs(scale="huge")


def test_a_seed_in_a_cell_is_refused() -> None:
    sweeper = OmegaConf.create(EXPERIMENT).hydra.sweeper
    sweeper.cells.append("algorithm=sgd seed=2")
    config = OmegaConf.create({"scale": "quick", "seeds": 1, "hydra": {"sweeper": sweeper}})
    with pytest.raises(InputError, match=r"^hydra\.sweeper\.cells: seed=2: would do nothing in a cell; allowed: "):
        experiment_sweeper.jobs(config, [])


def test_typed_overrides_win_and_may_sweep() -> None:
    (one, two, *_) = jobs("run.epochs=1", "schedule.lr=0.1,0.2", seeds=1)
    assert one == "algorithm=sgd schedule.lr=0.1 run.epochs=1 scale=quick seeds=null seed=0".replace(
        "schedule.lr=0.1 run.epochs=1", "run.epochs=1 schedule.lr=0.1"
    )
    assert "schedule.lr=0.2" in two


def test_cells_made_equal_are_one() -> None:
    assert [job.split()[0] for job in jobs("algorithm=nag", "cluster.workers=1", seeds=1)] == ["algorithm=nag"]
    # The cells say the number of workers before and after the method.
    for workers in ("4", "2"):
        typed = ("dataset.root=/data", "algorithm=asgd", f"cluster.workers={workers}")
        assert jobs(*typed, seeds=1) == [
            f"algorithm=asgd dataset.root=/data cluster.workers={workers} run.epochs=3 scale=quick seeds=null seed=0"
        ]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("schedule.lr=0.1 run.epochs=1", "run.epochs=1 schedule.lr=0.1", True),
        ("schedule.lr=0.2 run.epochs=1 schedule.lr=0.1", "schedule.lr=0.1 run.epochs=1", True),
        ("schedule.lr=0.10 run.name='a'", "run.name=a schedule.lr=0.1", True),
        ("algorithm=dasgd algorithm.tau=4", "algorithm.tau=4 algorithm=dasgd", True),
        ("algorithm=dasgd algorithm.tau=4", "algorithm=dasgd algorithm.tau=2", False),
        ("algorithm.tau=4", "~algorithm.tau=4", False),
        ("algorithm.scale={a:1} algorithm.scale.a=2", "algorithm.scale.a=2 algorithm.scale={a:1}", False),
        ("algorithm.scale={a:1} run.epochs=1", "run.epochs=1 algorithm.scale={a:1}", True),
    ],
)
def test_jobs_with_equal_settings_are_one(one: str, other: str, equal: bool) -> None:
    sweeper = {"cells": ["model=mlp", "model=linear"], "scales": {"quick": ""}}
    config = OmegaConf.create({"scale": "quick", "seeds": 1, "hydra": {"sweeper": sweeper}})
    parsed = [OverridesParser.create().parse_overrides(text.split()) for text in (one, other)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment_sweeper, "lines", lambda config, typed: parsed)
        assert len(experiment_sweeper.jobs(config, [])) == (1 if equal else 2)


def test_a_cell_can_be_of_some_scales() -> None:
    cells = ["algorithm=sgd", "scale=paper algorithm=asgd", "scale=short,paper algorithm=ssgd"]
    sweeper = {"cells": cells, "scales": {"quick": "", "short": "", "paper": ""}}
    for scale, cell_count in (("quick", 1), ("short", 2), ("paper", 3)):
        config = OmegaConf.create({"scale": scale, "seeds": 1, "hydra": {"sweeper": sweeper}})
        listed = experiment_sweeper.jobs(config, [])
        assert len(listed) == cell_count
        assert all(f"scale={scale}" in job for job in listed)


def test_seeds_can_be_given() -> None:
    assert [job.rpartition(" ")[0].rpartition("=")[2] for job in jobs("seed=7")] == ["quick"] * 3
    assert all("seed=7" in job for job in jobs("seed=7"))
    assert len(jobs("seed=7,8")) == 6
    assert len(jobs("seeds=5", seeds=5)) == 15


def test_one_of_each_cell() -> None:
    listed = [job.split() for job in jobs()]
    assert [job[0] for job in experiment_sweeper.one_per_cell(listed)] == [
        "algorithm=sgd",
        "algorithm=asgd",
        "algorithm=ssgd",
    ]


@pytest.mark.slow
class Launched:
    """Runs nothing: a job's errors are those of its learning rate; what was launched is noted."""

    errors: ClassVar[dict[str, dict[str, object]]] = {
        "0.1": {"status": "completed", "best_validation_error": 9.0},
        "0.3": {"status": "completed", "best_validation_error": 4.0},
        # It was the best before it diverged.
        "1": {"status": "diverged", "best_validation_error": 1.0},
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[list[str]] = []

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[object]:
        self.parts.append([" ".join(job) for job in jobs])
        for number, job in enumerate(jobs, start=initial_job_idx):
            (place := self.folder / str(number)).mkdir()
            rate = next((o.partition("=")[2] for o in job if o.startswith("schedule.lr=")), "0.1")
            (place / "summary.json").write_text(json.dumps(self.errors[rate]))
            FreshProcessLauncher.jobs.append(Job(number, tuple(job), place, 0))
        return []


def launched(folder: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, *typed: str, seeds: int = 3) -> Launched:
    monkeypatch.setattr(FreshProcessLauncher, "jobs", [])
    sweeper = experiment_sweeper.ExperimentSweeper(lines, {"quick": ""}, tuned="schedule.lr")
    hydra = {"sweeper": {"cells": lines, "scales": {"quick": ""}}}
    sweeper.config = OmegaConf.create({"scale": "quick", "seeds": seeds, "hydra": hydra})
    folder.mkdir()
    sweeper.launcher = launcher = Launched(folder)  # type: ignore[assignment]
    sweeper.sweep(list(typed))
    return launcher


def test_first_seed_finds_the_value_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["algorithm=asgd cluster.workers=2,4 schedule.lr=0.1,0.3,1", "algorithm=sgd"]
    first, others = launched(tmp_path / "a", lines, monkeypatch).parts
    assert len(first) == 7 and all(job.endswith(" seed=0") for job in first)
    scale = "scale=quick seeds=null"
    assert others == [
        f"{job} {scale} seed={seed}"
        for seed in (1, 2)
        for job in (
            "algorithm=asgd cluster.workers=2 schedule.lr=0.3",
            "algorithm=asgd cluster.workers=4 schedule.lr=0.3",
            "algorithm=sgd",
        )
    ]


def test_nothing_is_chosen_without_a_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Launched, "errors", {"0.1": {"status": "completed"}, "0.3": {"status": "completed"}})
    first, others = launched(tmp_path / "a", ["algorithm=asgd schedule.lr=0.1,0.3"], monkeypatch).parts
    assert len(first) == 2 and len(others) == 4
    # One seed, or seeds that were typed, run all at once.
    [alone] = launched(tmp_path / "b", ["algorithm=asgd schedule.lr=0.1,0.3"], monkeypatch, seeds=1).parts
    assert len(alone) == 2
    [typed] = launched(tmp_path / "c", ["algorithm=asgd schedule.lr=0.1,0.3"], monkeypatch, "seed=1,2").parts
    assert len(typed) == 4


def test_measured_cells_are_not_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment" / "a_paper"
    folder.mkdir(parents=True)
    (folder / "table1.yaml").write_text(EXPERIMENT)
    (tmp_path / "sitecustomize.py").write_text(STAND_IN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CONF.parent)])}

    def dcrun(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner.cli", "experiment=a_paper/table1", *arguments]
        command += ["--config-dir", str(tmp_path / "conf")]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    def measured() -> list[tuple[str, int, int, str, None, float]]:
        found = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/a_paper/*/*/summary.json")]
        return sorted(tuple(run[key] for key in ("algorithm", "seed", "scale", "seeds", "epochs")) for run in found)

    done = dcrun("seeds=1", "hydra.launcher.n_jobs=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert measured() == [(name, 0, "quick", None, 3.0) for name in ("asgd", "sgd", "ssgd")]
    again = dcrun("seeds=2")
    assert again.returncode == 0
    assert again.stdout.count("finished before, in ") == 3
    assert len(measured()) == 6
    wrong = dcrun("scale=huge")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "scale=huge: is not a scale; allowed: paper, quick" in wrong.stderr
    unknown = dcrun("experiment=a_paper/table9")
    assert unknown.returncode == 2
    assert "dc_asgd_icml2017/table1" in unknown.stderr
    assert "published" not in unknown.stderr


def test_experiment_without_data_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    environment.pop("DCRUN_DATA", None)
    command = [sys.executable, "-m", "runner.cli", "experiment=dc_asgd_icml2017/table2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "dataset.root=null: the data set is not there: data-sets does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_experiment_with_wrong_input_is_not_begun(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    data = tmp_path / "no_images"
    data.mkdir()
    command = [sys.executable, "-m", "runner.cli", "experiment=dc_asgd_icml2017/table2", f"dataset.root={data}"]
    done = subprocess.run([*command, "logger=none"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("dcrun: dataset.root=") == 1
    assert "dcrun: the first job of the experiment has wrong input" in done.stderr
