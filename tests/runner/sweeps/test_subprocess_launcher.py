import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.cli import main
from runner.cli.compose import CONF
from runner.config import resources
from runner.config.schema import GPU_SLOT, without_hydra
from runner.run_folder.folders import is_locked
from runner.run_folder.jsonl import read_lines
from runner.run_folder.sweep_jobs import JOBS, noted
from runner.sweeps import subprocess_launcher
from runner.sweeps.job import Job, PlannedJob
from runner.sweeps.job_notes import JobNotes
from runner.sweeps.placement import Jobs, Placement
from runner.sweeps.subprocess_launcher import FreshProcessLauncher
from tests.trial import compose, when

# Stands in for runner.train.dispatch in every process of a test: seed 1 fails, seed 2 waits to be stopped, seed 4
# crashes and seed 5 is killed.
STAND_IN = """
import json, os, signal, sys, time, types

def dispatch(cfg, folder):
    def write(status):
        facts = {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0)}
        facts |= {"resume": cfg.run.resume, "group": cfg.logger.group, "final_test_error": 1.5}
        (folder / "summary.json").write_text(json.dumps({"status": status, **facts}))
    write("running")
    if cfg.seed == 1:
        raise RuntimeError("no luck")
    if cfg.seed == 4:
        os.abort()
    if cfg.seed == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.seed == 2:
        def stop(number, frame):
            write("interrupted")
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "step-000000000001.pt").touch()
            os._exit(128 + number)
        if cfg.run.resume is None:
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, stop)
            (folder / "waiting").touch()
            time.sleep(30)
    write("completed")
    return 0

module = types.ModuleType("runner.train.dispatch")
module.dispatch = dispatch
sys.modules["runner.train.dispatch"] = module
"""

CAUGHT: Any = {"capture_output": True, "text": True, "timeout": 240}


@pytest.fixture
def command(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "sitecustomize.py").write_text(STAND_IN)
    path = os.pathsep.join([str(tmp_path / "stand_in"), str(CONF.parent)])
    return [sys.executable, "-m", "runner.cli"], {**os.environ, "PYTHONPATH": path, "COLUMNS": "120"}


def sweep_of(tmp_path: Path, name: str = "dcrun") -> Path:
    """Returns the newest sweep folder."""
    return max((tmp_path / "outputs" / name).iterdir(), key=lambda folder: folder.stat().st_mtime_ns)


def summary(folder: Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text())


def test_jobs_are_forked_and_fail_alone(command: tuple[list[str], dict[str, str]], tmp_path: Path):
    """Each is a process of its own, with a session of its own, whose crash is its own."""
    start, environment = command
    line = ["-m", "algorithm=asgd", "seed=0,4,5,1,3", "run.device=cpu"]
    done = subprocess.run([*start, *line, "hydra.verbose=false"], cwd=tmp_path, env=environment, **CAUGHT)
    assert done.returncode == 1
    folder = sweep_of(tmp_path)
    facts = [summary(folder / str(number)) for number in range(5)]
    assert [fact["status"] for fact in facts] == ["completed", "running", "running", "running", "completed"]
    assert len({fact["pid"] for fact in facts}) == 5
    assert [fact["session"] for fact in facts] == [fact["pid"] for fact in facts]
    assert len({fact["parent"] for fact in facts}) == 1, "one process forks all of them"
    assert {fact["group"] for fact in facts} == {folder.name}
    for number, seed, ending in ((1, 4, "signal SIGABRT"), (2, 5, "signal SIGKILL"), (3, 1, "exit code 1")):
        assert f"dcrun: job {number} (algorithm=asgd seed={seed} run.device=cpu) failed with {ending}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "job 2 (3 of 5): algorithm=asgd seed=5" in done.stdout
    table = done.stdout[done.stdout.index("sweep in ") :]
    assert [f"seed={seed}" in table for seed in (0, 1, 3, 4, 5)] == [True] * 5
    assert table.count("completed") == 2


@pytest.mark.slow
def test_finished_jobs_are_not_run_again(command: tuple[list[str], dict[str, str]], tmp_path: Path):
    """With run.resume=true; the failed one is."""
    start, environment = command
    line = ["-m", "algorithm=asgd", "seed=0,1,3", "run.device=cpu"]
    subprocess.run([*start, *line], cwd=tmp_path, env=environment, **CAUGHT)
    again = subprocess.run([*start, *line, "run.resume=true"], cwd=tmp_path, env=environment, **CAUGHT)
    assert again.returncode == 1
    assert again.stdout.count("finished before, in ") == 2
    assert [path.name for path in sweep_of(tmp_path).iterdir() if path.is_dir()] == ["1"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_stops_a_resumable_sweep(
    number: signal.Signals, command: tuple[list[str], dict[str, str]], tmp_path: Path
):
    start, environment = command
    process = subprocess.Popen([*start, "-m", "seed=2,0"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("outputs/dcrun/*/0/waiting")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    finally:
        process.kill()
        process.communicate()
    folder = sweep_of(tmp_path)
    assert summary(folder / "0")["status"] == "interrupted"
    assert not (folder / "1").exists()

    again = [*start, "-m", "seed=2,0", "run.resume=true", "logger=none"]
    subprocess.run(again, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert summary(folder / "0")["status"] == "completed"
    assert summary(folder / "0")["resume"] == str((folder / "0").relative_to(tmp_path))
    assert summary(sweep_of(tmp_path) / "1")["status"] == "completed"


def test_ctrl_c_reaches_every_process_of_a_job(tmp_path: Path):
    """As from a terminal: the ranks of a job on processes count on getting it themselves."""
    there = tmp_path / "there"
    child = (
        f"import signal, time; signal.signal(2, signal.default_int_handler); open({str(there)!r}, 'w'); time.sleep(5)"
    )
    code = "import signal, subprocess, sys; signal.signal(2, signal.SIG_IGN)"
    code += f"; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    launcher = FreshProcessLauncher(1)
    plan = PlannedJob(0, (), tmp_path, (sys.executable, "-c", code))
    thread = when(there.exists, lambda: launcher._stop(signal.SIGINT))
    [job] = launcher._run_all([plan], 1)
    thread.join(30)
    assert job.code == 256 - signal.SIGINT


def test_parallel_jobs_have_different_slots(tmp_path: Path):
    claim = """
import os, sys, time
slot = os.environ["DCRUN_GPU_SLOT"]
assert os.environ["DCRUN_CORES"] == "4"
os.close(os.open(slot, os.O_CREAT | os.O_EXCL))
time.sleep(0.3)
os.rename(slot, sys.argv[1] + "." + slot)
"""
    planned = [
        PlannedJob(
            number,
            (),
            tmp_path / str(number),
            (sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}){claim}", f"job{number}"),
        )
        for number in range(5)
    ]
    launcher = FreshProcessLauncher(2)
    launcher.cores_each = 4
    launcher.notes = JobNotes(tmp_path)
    launcher.notes.plan([*planned, Job(5, ("seed=5",), tmp_path / "elsewhere", 0)])
    jobs = launcher._run_all(planned, 5)
    assert [job.code for job in jobs] == [0] * 5
    assert [(job.number, job.state, job.code) for job in noted(tmp_path)] == [(n, "ended", 0) for n in range(6)]
    assert noted(tmp_path)[5].label == "seed=5"
    written = read_lines(tmp_path / JOBS)
    assert [row["state"] for row in written if row["number"] == 3] == ["waiting", "started", "ended"]
    assert {path.suffix for path in tmp_path.glob("job*[01]")} == {".0", ".1"}


def test_a_job_alone_has_all_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(GPU_SLOT, raising=False)
    assert GPU_SLOT not in FreshProcessLauncher(1)._environment(0)
    assert FreshProcessLauncher(2)._environment(0)[GPU_SLOT] == "0"


@pytest.mark.parametrize(("n_jobs", "at_a_time", "each"), [("auto", 3, 2), (5, 5, 2), (1, 1, None)])
def test_cores_are_shared_out_among_jobs(
    n_jobs: Jobs,
    at_a_time: int,
    each: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Those that a job's compute processes may take, as many as pay."""
    monkeypatch.setattr(resources, "cores", lambda: 6)
    monkeypatch.setattr(subprocess_launcher, "place_here", lambda configs: Placement(len(configs), "chosen"))
    config = compose("algorithm=asgd")
    planned = [PlannedJob(number, (), Path(str(number)), ("python",), None, config) for number in range(3)]
    launcher = FreshProcessLauncher(n_jobs)
    launcher._place([*planned, Job(3, (), Path("3"), 0)])
    assert (launcher.n_jobs, launcher.cores_each) == (at_a_time, each)
    assert capsys.readouterr().out == ("dcrun: chosen\n" if n_jobs == "auto" else "")


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> None:
    """Runs a sweep whose jobs were finished elsewhere, in `folder`."""

    def run_all(self: FreshProcessLauncher, plans: Sequence[PlannedJob], total: int) -> list[Job]:
        assert all(plan.config is self.composed[plan.overrides] for plan in plans), "a job is composed once"
        return [Job(plan.number, plan.overrides, folder / "elsewhere" / str(plan.number), 0) for plan in plans]

    monkeypatch.setattr(FreshProcessLauncher, "_run_all", run_all)
    monkeypatch.chdir(folder)
    assert main.main(["-m", "seed=0,1", "logger=none", "hydra.sweep.dir=here", *overrides]) == 0


def test_the_table_names_its_own_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sweep(monkeypatch, tmp_path)
    out = capsys.readouterr().out
    assert "sweep in here" in out
    assert "elsewhere" not in out


@pytest.mark.slow
def test_jobs_are_composed_as_by_hydra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What the command has composed to check it is what the launcher would compose."""
    found = []

    def run_all(self: FreshProcessLauncher, plans: Sequence[PlannedJob], total: int) -> list[Job]:
        for plan in plans:
            config = self.composed[plan.overrides]
            assert plan.config is config
            # As it was planned; the composition below changes Hydra's one configuration.
            mine, subdir = OmegaConf.to_container(without_hydra(config)), str(config.hydra.sweep.subdir)
            assert plan.folder == Path("here") / subdir
            again = self.hydra_context.config_loader.load_sweep_config(self.config, list(plan.overrides))  # type: ignore[union-attr,arg-type]
            assert mine == OmegaConf.to_container(without_hydra(again))
            assert config.hydra.job.override_dirname == again.hydra.job.override_dirname
            found.append(plan.overrides)
        return []

    monkeypatch.setattr(FreshProcessLauncher, "_run_all", run_all)
    monkeypatch.chdir(tmp_path)
    own = ["hydra.sweep.dir=here", "hydra.sweep.subdir=${hydra.job.num}-${seed}"]
    assert main.main(["-m", "seed=0,1", "algorithm=asgd", "model=mlp", "logger=none", *own]) == 0
    assert len(found) == 2


SLOWER = [pytest.param(answer, marks=pytest.mark.slow) for answer in ("run.estimate=true", "run.plot_schedule=a.png")]


@pytest.mark.parametrize("answer", ["run.advise=true", *SLOWER])
def test_sweep_of_previews_has_no_table(
    answer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sweep(monkeypatch, tmp_path, "algorithm=ssgd", answer)
    assert "sweep in" not in capsys.readouterr().out


def test_killed_sweep_takes_its_job_along(command: tuple[list[str], dict[str, str]], tmp_path: Path):
    start, environment = command
    sweep = subprocess.Popen([*start, "-m", "seed=2,0"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/dcrun/*/0/waiting")) and time.monotonic() < deadline:
        time.sleep(0.05)
    job = sweep_of(tmp_path) / "0"
    assert summary(job)["status"] == "running"
    sweep.kill()
    sweep.wait()
    while is_locked(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert summary(job)["status"] == "interrupted", "it has saved"


@pytest.mark.slow
def test_equal_run_of_another_process_is_waited_for(
    command: tuple[list[str], dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start, environment = command
    single = [*start, "seed=2", "hydra.run.dir=outputs/dcrun/single"]
    process = subprocess.Popen(single, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    folder = tmp_path / "outputs" / "dcrun" / "single"
    deadline = time.monotonic() + 60
    while not (folder / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    again = [*start, "-m", "seed=2", "run.resume=true"]
    with subprocess.Popen(again, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as sweep:
        assert sweep.stderr is not None
        line = sweep.stderr.readline()
        assert line.startswith("dcrun: job 0: outputs/dcrun/single has an equal run, which another process is writing")
        process.terminate()
        assert process.wait(60) == 143
        assert sweep.wait(60) == 0
    assert summary(folder)["status"] == "completed", "it goes on where that has stopped"
    assert not (sweep_of(tmp_path) / "0").exists()


def test_launchers_of_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Hydra's own would call a function in this process, and no job would run."""
    given = ["-m", "seed=0,1", "logger=none", f"hydra.sweep.dir={tmp_path}/here", "hydra/launcher=basic"]
    assert main.main(given) == 2
    wanted = "hydra/launcher=basic: does not start this project's jobs; allowed: fresh_process, submitit_local, slurm"
    assert wanted in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "here").exists()
