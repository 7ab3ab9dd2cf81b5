"""Command lines of replays, delays from settings, and sweeps that go on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.cli import main
from runner.cli.compose import composer
from runner.config import schema
from runner.config.errors import InputError
from runner.config.schema import ComputeConfig, Config, NetworkConfig, StragglersConfig
from runner.loop.clock import Clock
from runner.run_folder import folders, resume
from runner.run_folder.console import slowest_line
from runner.run_folder.resume import EarlierRuns, recorded_overrides
from runner.run_folder.timeline import Activity
from runner.sweeps import experiment_sweeper


def folder_of(tmp_path: Path, *overrides: str) -> Path:
    folder = tmp_path / "recorded"
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    (folder / "trace.jsonl").touch()
    return folder


RECORDED = (
    "algorithm=asgd",
    "algorithm.momentum=0.9",
    "cluster=processes",
    "cluster.workers=4",
    "run.name=mine",
    "seed=3",
)


def test_replay_takes_recorded_overrides(tmp_path: Path):
    folder = folder_of(tmp_path, *RECORDED, "run.epochs=2", "logger=none", "hydra.run.dir=outputs/recorded")
    for place in (folder, folder / "trace.jsonl"):
        given = ["cluster=replay", f"cluster.trace={place}"]
        assert recorded_overrides(given) == ["algorithm=asgd", "algorithm.momentum=0.9", "seed=3", "run.epochs=2"]


def test_typed_overrides_beat_recorded(tmp_path: Path):
    folder = folder_of(tmp_path, *RECORDED, "run.epochs=2")
    given = ["algorithm=dc_asgd_a", "run.epochs=1", "cluster=replay", f"cluster.trace={folder}"]
    assert recorded_overrides(given) == ["seed=3"]
    assert recorded_overrides([*given[2:], "algorithm.momentum=0"]) == ["algorithm=asgd", "seed=3", "run.epochs=2"]


def test_cell_of_an_experiment_is_replayed(tmp_path: Path):
    recorded = (*RECORDED, "experiment=dc_asgd_icml2017/table1", "run.resume=null", "hydra.mode=RUN", "scale=quick")
    given = ["cluster=replay", f"cluster.trace={folder_of(tmp_path, *recorded)}"]
    taken = recorded_overrides(given)
    assert taken[-2:] == ["hydra.mode=RUN", "run.resume=null"]
    assert recorded_overrides([*given, "run.resume=a"])[-1] == "hydra.mode=RUN"
    schema.register()
    experiment_sweeper.register()
    with composer() as compose:
        [cfg] = compose.jobs([*taken, *given], multirun=False)
    assert (cfg.run.resume, cfg.schedule.kind) == (None, "multistep")


@pytest.mark.parametrize(
    "given", [[], ["cluster=processes"], ["cluster=replay"], ["cluster=replay", "cluster.trace=no"]]
)
def test_other_command_lines_are_left_alone(given: list[str]):
    assert recorded_overrides(given) == []


def clock(compute: ComputeConfig, **stragglers: Any) -> Clock:
    return Clock(compute, StragglersConfig(**stragglers), NetworkConfig(), workers=3, seed=1)


def test_real_worker_sleeps_like_the_clock():
    virtual = clock(ComputeConfig(seconds=0.5, distribution="gamma"), probability=0.3)
    for worker, task in ((0, 0), (1, 5), (2, 7)):
        seconds = virtual.compute_seconds(worker, task, 0.5, 2.0)
        assert virtual.sleep_seconds(worker, task, 0.1 * seconds, 0.5, 2.0) == pytest.approx(0.9 * seconds)
        assert virtual.sleep_seconds(worker, task, 2 * seconds, 0.5, 2.0) == 0


def test_speeds_and_stragglers_stretch_measured_time():
    chance: dict[str, Any] = {"probability": 0.5, "extra": [2.0, 2.0]}
    real = clock(ComputeConfig(seconds=None, speeds=[2.0, 1.0, 2.0]), **chance)
    virtual = clock(ComputeConfig(seconds=1.0, distribution="constant"), **chance)
    late = [virtual.compute_seconds(0, task) > 2 for task in range(50)]
    assert 10 < sum(late) < 40
    assert [real.sleep_seconds(0, task, 0.1) for task in range(50)] == pytest.approx([0.2 if x else 0.0 for x in late])
    calm = clock(ComputeConfig(seconds=None, speeds=[2.0, 1.0, 2.0]))
    assert calm.sleep_seconds(1, 0, 0.1) == pytest.approx(0.1)
    assert calm.sleep_seconds(2, 0, 0.1) == 0


def test_summary_without_waiting():
    activity = Activity(2)
    activity.span(0, "compute", 0.0, 4.0)
    activity.span(1, "compute", 0.0, 5.1)  # a gradient that the run's end cuts off
    slow = activity.slowest(5.0)
    assert slow["slowest"]["waiting_share"] is None
    assert "waiting" not in slowest_line({**slow, "clock": "virtual"})


def test_the_slowest_worker_is_named():
    activity = Activity(3)
    for worker, seconds in enumerate((1.0, 4.0, 2.0)):
        activity.span(worker, "compute", 0.0, seconds)
        activity.span(worker, "wait", seconds, 5.0)
    activity.staleness(1, 4)
    activity.staleness(1, 5)
    slow = activity.slowest(5.0)
    assert slow["slowest"] == {
        "worker": 1,
        "seconds_per_gradient": 4.0,
        "times_median": 2.0,
        "waiting_share": pytest.approx(1 / (4 + 1 + 3)),
    }
    assert slow["staleness_by_worker"] == [None, 4.5, None]
    line = slowest_line({**slow, "clock": "virtual"})
    assert line == "worker 1: 4 virtual s a gradient, 2.00 x the median; 12 % of the workers' waiting is this one's"
    assert Activity(1).slowest(5.0) == {}
    other = Activity(3)
    other.merge(1, activity.totals(1))
    assert other.slowest(5.0)["slowest"]["worker"] == 1


def test_a_run_folder_has_one_writer(tmp_path: Path):
    assert not folders.is_locked(tmp_path)
    code = "import sys, time, pathlib; from runner.run_folder.folders import run_lock\n"
    code += "with run_lock(pathlib.Path(sys.argv[1])):\n"
    code += "    print('in', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(Path(main.__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        assert folders.is_locked(tmp_path)
        with pytest.raises(InputError, match="is being written by a process that runs"), folders.run_lock(tmp_path):
            pass
        other.kill()
    assert not folders.is_locked(tmp_path)


def past(folder: Path, cfg: Any, status: str, checkpoints: bool = True) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    if checkpoints:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "step-000000000001.pt").touch()
    return folder


def job(seed: int) -> Any:
    cfg = OmegaConf.structured(Config)
    cfg.seed = seed
    return cfg


def test_sweep_resumes_finished_and_stopped_jobs(tmp_path: Path):
    done = past(tmp_path / "a" / "0", job(0), "completed")
    past(tmp_path / "a" / "1", job(1), "failed")
    stopped = past(tmp_path / "a" / "2", job(2), "interrupted")
    killed = past(tmp_path / "b" / "0", job(3), "running")
    past(tmp_path / "b" / "1", job(4), "interrupted", checkpoints=False)
    (tmp_path / "c" / ".hydra").mkdir(parents=True)
    (tmp_path / "c" / ".hydra" / "config.yaml").write_text("a: [")
    earlier = EarlierRuns(tmp_path)
    assert [earlier.of(job(seed)) for seed in range(6)] == [
        (done, True),
        None,
        (stopped, False),
        (killed, False),
        None,
        None,
    ]
    with folders.run_lock(stopped):
        pass  # by this process; another one's lock is what counts
    assert resume.EarlierRuns(tmp_path).of(job(2)) == (stopped, False)


def test_older_run_lacks_a_new_key(tmp_path: Path):
    folder = past(tmp_path / "a" / "0", job(0), "completed")
    path = folder / ".hydra" / "config.yaml"
    old = OmegaConf.load(path)
    del old.run["capture"]
    OmegaConf.save(old, path)
    other = job(0)
    other.run.capture = False
    assert EarlierRuns(tmp_path).of(job(0)) == (folder, True)
    assert EarlierRuns(tmp_path).of(other) is None


def test_locked_run_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    past(tmp_path / "a" / "0", job(0), "running")
    monkeypatch.setattr(folders, "is_locked", lambda folder: True)
    assert EarlierRuns(tmp_path).of(job(0)) is None


def test_folders_of_earlier_jobs_stay(tmp_path: Path):
    assert folders.free_folder(tmp_path / "0") == tmp_path / "0"
    (tmp_path / "0").mkdir()
    (tmp_path / "0-2").mkdir()
    assert folders.free_folder(tmp_path / "0") == tmp_path / "0-3"


def test_sweeps_of_one_second_have_two_folders():
    code = "from runner.cli import main as cli\ncli._sweep = lambda args, jobs: print(jobs[0].hydra.sweep.dir) or 0\n"
    command = [sys.executable, "-c", code + "cli.main(['-m', 'seed=0'])"]
    environment = os.environ | {"PYTHONPATH": str(Path(main.__file__).parents[2])}
    sweeps = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    names = {sweep.communicate(timeout=120)[0].strip() for sweep in sweeps}
    assert all(re.fullmatch(r"outputs/dcrun/[\d_-]+_[0-9a-f]{6}", name) for name in names)
    assert len({name[-6:] for name in names}) == 2
