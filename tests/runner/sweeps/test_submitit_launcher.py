import json
import os
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from runner.cli.compose import CONF
from runner.config.errors import InputError
from runner.config.exit_codes import WRONG_INPUT
from runner.sweeps import submitit_launcher
from runner.sweeps.job import PlannedJob
from runner.sweeps.submitit_launcher import SubmititLauncher, Task, check
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

pytest.importorskip("submitit", reason='pip install -e ".[submitit]"')

TARGET = "runner.sweeps.submitit_launcher.SubmititLauncher"
# Waits to be stopped, and says so in its exit code.
WAITS = """
import pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path("stopped").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("waiting").touch()
time.sleep(30)
"""
# Stands in for runner.train.dispatch in every process of a test: seed 1 fails.
STAND_IN = """
import json, os, sys, types

def dispatch(cfg, folder):
    facts = {"status": "completed", "final_test_error": 1.5, "submitted": "SUBMITIT_EXECUTOR" in os.environ}
    (folder / "summary.json").write_text(json.dumps(facts))
    return cfg.seed

module = types.ModuleType("runner.train.dispatch")
module.dispatch = dispatch
sys.modules["runner.train.dispatch"] = module
"""


def test_task_returns_the_exit_code(tmp_path: Path) -> None:
    assert Task([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)() == 3


@pytest.mark.parametrize("kept", [False, True])
def test_preempted_task_resumes_from_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    monkeypatch.chdir(tmp_path)
    if kept:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "step-000000000001.pt").touch()
    task = Task([sys.executable, "-c", WAITS, "seed=1"], tmp_path)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(task()))
    thread.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    again = task.checkpoint().function
    thread.join()
    assert codes == [143]
    assert (tmp_path / "stopped").exists()
    assert again.command == ([sys.executable, "-c", WAITS, f"run.resume='{tmp_path}'"] if kept else task.command)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster": "pbs"}, "hydra.launcher.cluster=pbs: is not one of the choices; allowed: slurm, local"),
        ({"timeouts": -1}, "hydra.launcher.timeouts=-1: is not a number of repeats"),
        ({"parameters": {"timeout_min": "long"}}, 'hydra.launcher.parameters: Parameter "timeout_min"'),
        ({"parameters": {"luck": 1}}, "hydra.launcher.parameters: Parameter 'luck'"),
        ({"cluster": "slurm"}, "hydra/launcher=slurm: there is no srun on this machine"),
    ],
)
def test_wrong_settings_are_one_line(monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str) -> None:
    monkeypatch.setenv("PATH", "")
    own = {"_target_": TARGET, "cluster": "local", "n_jobs": 1, "timeouts": 3, "parameters": {"timeout_min": 1}}
    hydra = {"launcher": {**own, **change}, "runtime": {"choices": {"hydra/launcher": "slurm"}}}
    with pytest.raises(InputError, match=message):
        check(OmegaConf.create({"hydra": hydra}))


def test_slurm_example_fits_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    launcher = OmegaConf.load(CONF / "hydra" / "launcher" / "slurm.yaml")
    assert isinstance(launcher, DictConfig)
    launcher.parameters.update(gpus_per_node=1, slurm_partition="gpu", slurm_account="a", slurm_constraint="b")
    check(OmegaConf.create({"hydra": {"launcher": launcher, "runtime": {"choices": {}}}}))


class Queue:
    """Stands in for submitit's executor: the last word of a job's command is its exit code.

    Args:
        patience: seconds that the jobs after the first take, if they are not cancelled before.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.tasks: list[Task] = []
        self.cancelled: set[int] = set()
        self.stopped = threading.Event()

    def batch(self) -> AbstractContextManager[None]:
        return nullcontext()

    def submit(self, task: Task) -> "Queued":
        self.tasks.append(task)
        return Queued(self, len(self.tasks) - 1)


class Queued:
    """A job of the queue; those after the first end when they are cancelled, or later with their code."""

    def __init__(self, queue: Queue, number: int) -> None:
        self.queue, self.number = queue, number

    def result(self) -> int:
        from submitit.core.utils import UncompletedJobError

        if self.number and self.queue.stopped.wait(self.queue.patience):
            raise UncompletedJobError("has not produced any output (state: CANCELLED)")
        return int(self.queue.tasks[self.number].command[-1])

    def cancel(self, check: bool) -> None:
        self.queue.cancelled.add(self.number)
        self.queue.stopped.set()


@pytest.mark.parametrize(
    ("cluster", "cells", "code", "begun", "ended"),
    [
        ("local", True, WRONG_INPUT, 1, [0]),
        ("slurm", True, WRONG_INPUT, 3, [0]),
        ("local", True, 1, 3, [0, 1, 2]),
        ("slurm", True, 1, 3, [0, 1, 2]),
        ("local", False, WRONG_INPUT, 3, [0, 1, 2]),
    ],
)
def test_first_job_with_wrong_input_ends_experiment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cluster: str,
    cells: bool,
    code: int,
    begun: int,
    ended: list[int],
) -> None:
    refused = len(ended) == 1
    queue = Queue(30 if refused else 0)
    monkeypatch.setattr(submitit_launcher, "_executor", lambda *given: queue)
    monkeypatch.setattr(FreshProcessLauncher, "refused", False)
    launcher = SubmititLauncher(cluster, 1, 3, {})
    sweeper: dict[str, Any] = {"cells": ["seed=0"]} if cells else {}
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "sweeper": sweeper}})
    codes = (code, 0, 0)
    planned = [PlannedJob(n, (f"seed={n}",), tmp_path / str(n), ("x", str(c))) for n, c in enumerate(codes)]
    jobs = launcher._run_all(planned, len(planned))
    assert [job.number for job in jobs] == ended
    assert len(queue.tasks) == begun
    assert FreshProcessLauncher.refused == refused
    assert queue.cancelled.issuperset({1, 2}) == (refused and cluster == "slurm")
    err = capsys.readouterr().err
    assert ("so no further job is started" in err) == refused
    assert err.count(" failed with exit code") == 1


@pytest.mark.slow
def test_a_sweep_through_the_local_executor(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STAND_IN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CONF.parent)])}

    def dcrun(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner.cli", "-m", "hydra/launcher=submitit_local", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = dcrun("seed=0,1", "hydra.launcher.n_jobs=2")
    assert done.returncode == 1
    assert "dcrun: job 1 (seed=1) failed with exit code 1" in done.stderr
    (folder,) = tmp_path.glob("outputs/dcrun/*")
    facts = [json.loads((folder / number / "summary.json").read_text()) for number in "01"]
    assert [fact["submitted"] for fact in facts] == [True, True]
    assert len(list((folder / "submitit").glob("*_submitted.pkl"))) == 2
    again = dcrun("seed=0", "run.resume=true")
    assert (again.returncode, again.stdout.count("finished before, in ")) == (0, 1)
