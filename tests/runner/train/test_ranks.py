"""Ranks that torchrun starts; those that dcrun spawns itself are in test_spawn.py."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.compose import CONF
from tests.trial import rows, when

ON_PROCESSES = ["cluster=processes", "run.threads=1", "logger=none", "model=mlp"]


def torchrun(folder: Path, *overrides: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Starts three ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", *options, "-m", "runner.cli"]
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


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
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


def ranks_of(agent: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids of an agent's ranks, by rank."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    found = {}
    for pid in map(int, children):
        if match := re.search(rb"\0RANK=(\d+)\0", Path(f"/proc/{pid}/environ").read_bytes()):
            found[int(match[1])] = pid
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "victim", "codes"),
    [("asgd", 2, {1, 143}), ("asgd", 0, {1}), ("ssgd", 1, {1}), ("ssgd", 0, {1}), ("ddg", 2, {1})],
)
def test_a_killed_rank_leaves_a_summary(algorithm: str, victim: int, codes: set[int], tmp_path: Path):
    settings = ("run.epochs=5000", "hydra.run.dir=run", "cluster.timeout=5", "model.widths=[8,8]")
    with torchrun(tmp_path, f"algorithm={algorithm}", *settings) as agent:

        def kill() -> None:
            os.kill(ranks_of(agent)[victim], signal.SIGKILL)

        when(lambda: rows(tmp_path / "run") > 1, kill).join()
        _, errors = agent.communicate()
    assert agent.returncode in codes
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted", errors
    said = [line for line in errors.splitlines() if f"(rank {victim}, host " in line]
    assert len(said) == 1, errors


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
def test_a_run_that_is_started_again_goes_on(algorithm: str, tmp_path: Path):
    """In its folder, from its newest checkpoint: every row is there once."""
    settings = ("run.epochs=40", "cluster.compute.seconds=0.01", "dataset=synthetic", "dataset.train=640")
    with torchrun(tmp_path, f"algorithm={algorithm}", *settings, options=("--max-restarts=1",)) as agent:

        def folder() -> Path:
            return next(tmp_path.glob("outputs/dcrun/*"), tmp_path)

        when(lambda: rows(folder()) > 3, lambda: os.kill(ranks_of(agent)[2], signal.SIGKILL)).join()
        _, errors = agent.communicate()
    assert agent.returncode == 0, errors
    [only] = tmp_path.glob("outputs/dcrun/*")
    epochs = [json.loads(line)["epoch"] for line in (only / "metrics.jsonl").read_text().splitlines()]
    assert len(epochs) == 40
    assert len(set(epochs)) == 40
    assert json.loads((only / "summary.json").read_text())["status"] == "completed"
    assert re.search(r"^dcrun: started again by its launcher: the run had come to epoch \d", errors, re.MULTILINE)
    if algorithm == "asgd":
        batches = [line["batch"] for line in map(json.loads, (only / "trace.jsonl").open()) if "batch" in line]
        assert len(batches) == len(set(batches)) == 40 * 20
