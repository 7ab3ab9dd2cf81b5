"""Jobs that are forked from a warm process. What a sweep makes of them is in test_subprocess_launcher.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.config.installation import ROOT
from runner.sweeps import forked_job
from runner.sweeps.forked_job import may_fork
from tests.trial import compose


@pytest.mark.parametrize(
    ("device", "there", "may"), [("cpu", 1, True), ("auto", 1, False), ("cuda:1", 2, False), ("auto", 0, True)]
)
def test_jobs_on_a_gpu_are_fresh(device: str, there: int, may: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forked_job, "gpus", lambda: there)
    assert may_fork(device) == may


def test_data_that_all_jobs_name_are_shared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forked_job, "gpus", lambda: 0)
    jobs = [compose("algorithm=asgd", f"seed={seed}", "dataset.limit_train=64") for seed in range(2)]
    shared = forked_job.shared_data(jobs)
    assert shared is not None
    assert "limit_train: 64" in shared
    assert forked_job.shared_data(jobs[:1]) is None, "one job shares with nobody"
    assert forked_job.shared_data([*jobs, compose("dataset.limit_train=65")]) is None
    for job in jobs:
        job.dataset._target_ = "mine.Data"
    assert forked_job.shared_data(jobs) is None, "what a user's own class does nobody knows"


@pytest.mark.slow
def test_forked_jobs_have_the_bits_of_fresh_ones(tmp_path: Path):
    """With two threads, which a job would not have, or hang with, had the warm process computed anything itself."""
    line = ["-m", "algorithm=asgd", "cluster.workers=2", "model=resnet8", "dataset.limit_train=200", "run.epochs=1"]
    line += ["run.device=cpu", "run.threads=1,2", "run.compute_processes=1,2", "seed=0", "logger=none"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    facts = {}
    for fork in ("true", "false"):
        own = [f"hydra.launcher.fork={fork}", f"hydra.sweep.dir={tmp_path / fork}"]
        command = [sys.executable, "-m", "runner.cli", *line, *own]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=240)
        jobs = [json.loads((tmp_path / fork / number / "summary.json").read_text()) for number in "0123"]
        facts[fork] = [(job["weights_sha256"], job["buffers_sha256"], job["threads"]) for job in jobs]
    assert facts["true"] == facts["false"]
    assert [threads for _, _, threads in facts["true"]] == [1, 1, 2, 2]
