import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.run_folder import machine


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    # Under a git hook these name the repository that the tests run in, which must not be touched.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def test_facts_are_complete_and_json():
    facts = machine.facts("cpu")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] == "cpu"
    assert facts["device_name"] == facts["cpu"] != ""
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cores"] >= 1
    assert facts["isa"] == torch.backends.cpu.get_cpu_capability()
    assert list(facts["versions"]) == ["python", "torch", "torchvision", "numpy", "hydra", "dcrun"]
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["hydra"].startswith("1.3")


def test_peak_memory_is_in_bytes_and_stays():
    # In a process of its own, whose peak is small.
    program = """
import torch
from runner.run_folder.machine import peak_memory_bytes
before = peak_memory_bytes("cpu")
held = torch.ones(50_000_000)
during = peak_memory_bytes("cpu")
del held
print(before, during, peak_memory_bytes("cpu"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    before, during, after = map(int, done.stdout.split())
    assert 50e6 < before < 2e9
    assert during - before == pytest.approx(200e6, rel=0.1)
    assert after == pytest.approx(during, rel=0.01)  # the kernel's count is exact to some pages per core


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "code.py").write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_commit_of_a_clean_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    commit = git(checkout, "rev-parse", "HEAD")
    assert machine.git_commit(checkout) == commit
    monkeypatch.setenv("GIT_DIR", str(checkout / "another"))
    assert machine.git_commit(checkout) == commit
    (checkout / "notes.txt").write_text("what is not code does not count")
    (checkout / "runner" / "__pycache__").mkdir()
    (checkout / "runner" / "__pycache__" / "code.pyc").write_text("")
    assert machine.git_commit(checkout) == commit


@pytest.mark.parametrize("path", ["runner/code.py", "runner/new.py", "algorithms/mine.py", "conf/algorithm/mine.yaml"])
def test_changed_or_new_code_is_dirty(checkout: Path, path: str):
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text("a = 2\n")
    assert machine.git_commit(checkout) == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_no_commit_outside_a_checkout(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch):
    installed = checkout / "environment" / "site-packages"
    (installed / "runner").mkdir(parents=True)
    (installed / "runner" / "code.py").write_text("a = 1\n")
    assert machine.git_commit(installed) is None
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    assert machine.git_commit(outside) is None
    monkeypatch.setenv("PATH", "")
    assert machine.git_commit(checkout) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_facts_of_a_cuda_device():
    facts = machine.facts("cuda:0")
    assert facts["device"] == "cuda:0"
    assert facts["device_name"] == torch.cuda.get_device_name(0)
    assert facts["versions"]["cuda"] == torch.version.cuda
    torch.cuda.reset_peak_memory_stats(0)
    held = torch.ones(1 << 22, device="cuda:0")
    assert machine.peak_memory_bytes("cuda:0") >= held.numel() * 4
