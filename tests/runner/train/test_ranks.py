"""Ranks that torchrun starts; those that dcrun spawns itself are in test_spawn.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.compose import CONF
from tests.trial import rows, when

ON_PROCESSES = ["cluster=processes", "run.threads=1", "logger=none", "model=mlp"]


def torchrun(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Starts three ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "-m", "runner.cli"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *ON_PROCESSES, *overrides], cwd=folder, env=environment, **pipes)


@pytest.mark.slow
def test_torchrun_starts_a_server_and_two_workers(tmp_path: Path):
    """One run folder, written by rank 0, with what the two workers did."""
    with torchrun(tmp_path, "algorithm=asgd", "run.epochs=1") as agent:
        _, errors = agent.communicate()
    assert agent.returncode == 0, errors
    [path] = tmp_path.glob("outputs/dcrun/*/summary.json")
    summary = json.loads(path.read_text())
    assert (summary["status"], summary["workers"], summary["workers_lost"]) == ("completed", 2, 0)


@pytest.mark.parametrize("algorithm", ["asgd", pytest.param("ssgd", marks=pytest.mark.slow)])
def test_run_stopped_by_torchrun_is_saved(algorithm: str, tmp_path: Path):
    """Its agent passes SIGTERM on to all ranks: those that only compute stay until rank 0 has what they have."""
    settings = ("run.epochs=5000", "run.checkpoint_every=5000", "hydra.run.dir=stopped")
    with torchrun(tmp_path, f"algorithm={algorithm}", *settings) as agent:
        when(lambda: rows(tmp_path / "stopped") > 1, agent.terminate).join()
        _, errors = agent.communicate()
    summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
    assert (summary["status"], summary["workers_lost"], summary.get("error")) == ("interrupted", 0, None), errors
    [only] = tmp_path.glob("stopped/checkpoints/step-*.pt")
    assert int(only.stem.split("-")[1]) == summary["updates"]
