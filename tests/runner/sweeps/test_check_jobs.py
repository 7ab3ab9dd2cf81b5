from pathlib import Path

import pytest
from omegaconf import DictConfig

from runner.cli import main
from runner.sweeps import check_jobs
from runner.sweeps.subprocess_launcher import FreshProcessLauncher
from tests.trial import SMALL

SWEEP = ("-m", *SMALL, "model=mlp", "algorithm=asgd", "dataset.limit_train=100", "run.batch_size=20")


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FreshProcessLauncher, "_run_all", lambda self, planned, total: pytest.fail("a job began"))


def test_last_job_is_checked_before_the_first_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main.main([*SWEEP, "cluster.workers=2,4,8,16", "seed=0,1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "dcrun: job cluster.workers=8, and 1 more of 4: run.batch_size=20: 8 workers would need 160 samples"
    )
    assert list(tmp_path.iterdir()) == []


def test_constructors_are_asked_too(capsys: pytest.CaptureFixture[str]):
    assert main.main([*SWEEP, "algorithm=dc_asgd_a", "algorithm.m=0.5,2"]) == 2
    assert capsys.readouterr().err.startswith("dcrun: job algorithm.m=2: algorithm.m=2: ")


def test_seeds_alone_are_one_job(monkeypatch: pytest.MonkeyPatch):
    """The first of them says as soon what is wrong with all."""
    monkeypatch.setattr(check_jobs, "ask", lambda question, jobs: pytest.fail("a process was started"))

    def job(seed: int) -> DictConfig:
        with main.composer() as compose:
            return compose.one([f"seed={seed}"])

    check_jobs.check([job(0), job(1)])
