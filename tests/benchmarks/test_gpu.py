import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import floors
import gpu
import gpu_workers
import pytest
import torch
from rich.console import Console
from torch import nn

from algorithms.base import Batch

SCRIPT = Path(gpu.__file__)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.slow
def test_missing_gpu_is_said_in_one_line(tmp_path: Path):
    # From a bare checkout, in any folder.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "benchmarks/gpu.py: this machine has no usable GPU; nothing was measured\n"
    assert not list(tmp_path.iterdir())


def test_counted_bytes_are_those_of_fused_networks():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    images = torch.randn(2, 3, 8, 8)
    convolution = 3 * 2 * 3 * 64 + 2 * 2 * 4 * 64 + 3 * 4 * 3 * 9
    linear = 3 * 2 * 256 + 2 * 2 * 10 + 3 * (2560 + 10)
    assert floors.bytes_of(network, images) == 4 * (convolution + linear)


# Compiled on a CPU a residual network would take minutes; what runs is the same.
SMALL = gpu.Plan(
    device="cpu",
    precision="fp32",
    model="linear",
    batch=4,
    steps=10,
    rounds=2,
    seconds=10.0,
    weights=1000,
    repeats=2,
    workers=(1, 2),
)


def test_a_batched_call_has_the_gradients_of_all():
    given = SMALL.subject("algorithm=sgd", "model=resnet8", "dataset.shape=[3,8,8]")
    given.dataset.train.augment = None
    ids = torch.arange(12).view(3, 4)
    found = gpu_workers._batched(given, ids)()
    assert isinstance(found, dict)
    replica = given.oracle.replica
    for worker, own in enumerate(ids):
        flat = given.oracle.gradient(replica.weights, Batch(worker, 0, own))
        for name, gradient in replica.named_weights(flat):
            torch.testing.assert_close(found[name][worker], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_failed_part_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine without a compiler, whose profiler is broken, and whose memory ends at two workers."""

    def broken(*given: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler\nat all")

    run = gpu.run

    def limited(given: Any) -> Any:
        if given.workers == 2:
            raise torch.OutOfMemoryError
        return broken() if given.cfg.run.compile else run(given)

    monkeypatch.setattr(torch, "compile", lambda *given, **options: broken)
    monkeypatch.setattr(gpu, "run", limited)
    monkeypatch.setattr(gpu.floors, "kernels", broken)
    told = io.StringIO()
    gpu.measure(SMALL, Console(file=told, width=200), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    lost = [name for name in found["not_measured"] if "compile" in name]
    assert len(lost) == 3
    assert set(found["not_measured"]) == {*lost, "floors", "memory of 2 workers"}
    assert found["not_measured"]["floors"] == "no compiler"
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["(d) dc_asgd_a, 8 workers / (c) sgd, both captured only"]["value"] > 0
    assert rows["(c) dcrun sgd, compiled / (a) bare eager loop"]["values"] == []
    assert set(found["peak_memory_bytes"]) == {"1"}
    assert "not measured: memory of 2 workers (OutOfMemoryError)" in told.getvalue()


@pytest.mark.slow
def test_nothing_begins_once_the_time_is_up(tmp_path: Path):
    gpu.measure(replace(SMALL, limit=0.0), Console(file=io.StringIO()), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["samples_per_second"] == found["peak_memory_bytes"] == found["floors"] == {}
    assert set(found["not_measured"].values()) == {"no time was left"}


@pytest.mark.slow
def test_whole_measurement_on_a_cpu(tmp_path: Path):
    told = io.StringIO()
    gpu.measure(SMALL, Console(file=told, width=160), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(found["peak_memory_bytes"]) == {"1", "2"}
    alone = next(row for row in found["rows"] if "1 processes on 1 GPUs" in row["what"])
    assert (alone["values"], alone["note"]) == ([], "not measured: there is one GPU")
    assert all(len(row["values"]) == 2 and row["value"] > 0 for row in found["rows"] if row is not alone)
    assert len(found["rows"]) == 10
    assert set(found["floors"]["shares"]) == set(found["samples_per_second"])
    assert found["floors"]["bounds_seconds"]["bytes"] > 0
    assert found["not_measured"] == {}
    for text in ("(a) bare eager loop", "(d) dcrun dc_asgd_a, 8 workers, run.compile=true", "dc_asgd_a push / copy"):
        assert text in told.getvalue()
