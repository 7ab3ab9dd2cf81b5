"""Compute processes on GPUs that this machine need not have; what only a GPU shows is in `gradients/test_gpu.py`."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from algorithms.asgd import ASGD
from runner.config.schema import GPU_SLOT
from runner.simulated.arena import Arena, NotShareable
from runner.train import build, compatibility, compute, executors
from tests.transfers import LateTransfers
from tests.trial import compose, train

SMALL = ("model=mlp", "dataset.limit_train=64", "dataset.limit_test=20", "run.batch_size=8", "cluster.workers=3")


def on_gpus(monkeypatch: pytest.MonkeyPatch, count: int, *overrides: str) -> build.RunComponents:
    """Return what a run is made of that believes to be on a machine with so many GPUs."""
    components = build.build_run(compose("algorithm=asgd", *SMALL, "run.compute_processes=auto", *overrides))
    components.device = torch.device("cuda", 0)
    components.cfg.run.device = "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(compute, "_shortest_seconds", lambda call: pytest.fail("nothing is measured"))
    monkeypatch.delenv(GPU_SLOT, raising=False)
    return components


@pytest.mark.parametrize(("gpus", "processes"), [(1, 1), (2, 2), (8, 3)])
def test_auto_takes_a_gpu_for_each_process(gpus: int, processes: int, monkeypatch: pytest.MonkeyPatch):
    """No more than there are workers, three; however many cores there are."""
    components = on_gpus(monkeypatch, gpus)
    monkeypatch.setattr(compute, "own_cores", lambda: 1)
    assert compute.process_count(components) == processes


def test_auto_takes_no_gpu_of_others(monkeypatch: pytest.MonkeyPatch):
    components = on_gpus(monkeypatch, 4)
    components.cfg.run.device = "cuda:1"
    assert compute.process_count(components) == 1, "one GPU is named"
    components.cfg.run.device = "cuda"
    monkeypatch.setenv(GPU_SLOT, "1")
    assert compute.process_count(components) == 1, "other jobs of the sweep run beside this one"


def test_a_run_that_chose_goes_on_without_locked_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that was asked for processes says why it has none."""

    class Unlocked(LateTransfers):
        def attach(self, arena: Arena) -> None:
            raise NotShareable.because("cannot be page-locked")

    monkeypatch.setattr(executors, "transfers_on", lambda device: Unlocked())
    monkeypatch.setattr(compute, "paying_count", lambda components: 2)
    for algorithm in ("asgd", "ssgd", "hogwild"):
        given = (f"algorithm={algorithm}", *SMALL, "run.epochs=1")
        expected = train(*given, "run.compute_processes=1", folder=tmp_path)
        assert train(*given, "run.compute_processes=auto", folder=tmp_path).sha256 == expected.sha256
        with pytest.raises(NotShareable, match=r"^run.compute_processes: cannot be page-locked; allowed: 1$"):
            train(*given, "run.compute_processes=2", folder=tmp_path)


@pytest.mark.parametrize(("device", "number", "expected"), [("cuda", 0, 0), ("cuda", 3, 1), ("cuda:1", 2, 1)])
def test_processes_are_spread_over_gpus(
    device: str, number: int, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Process k computes on GPU k modulo GPUs, which it makes its current one; all on one that is named."""
    built: list[int] = []

    class Built(Exception):
        pass

    def set_device(device: torch.device) -> None:
        built.append(device.index)
        raise Built

    cfg = compose("algorithm=asgd", *SMALL)
    cfg.run.device = device
    monkeypatch.delenv(GPU_SLOT, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    with pytest.raises(Built):
        executors.build_tasks(OmegaConf.to_container(cfg), number, Arena(64), None)  # type: ignore[arg-type]
    assert built == [expected]


@pytest.mark.slow
def test_nothing_begins_cuda_where_processes_are_forked_from():
    """What a fork server imports must not ask for GPUs: a process forked after that cannot use them."""
    asked = "import torch; torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = None; "
    asked += "torch._C._cuda_getDeviceCount = None; import runner.config.forkserver, runner.train.executors"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("device", "obstacle"), [("cpu", None), ("cuda", None), ("mps", "on mps one process computes")]
)
def test_other_devices_have_one_process(device: str, obstacle: str | None):
    oracle: Any = SimpleNamespace(device=torch.device(device), streams=False)
    assert compatibility.compute_obstacle(compose("algorithm=asgd", *SMALL), ASGD(), oracle) == obstacle
