from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.run_folder.jsonl import read_lines
from tests.trial import run_in

RUN = (
    "dataset.limit_train=101",
    "dataset.limit_test=20",
    "dataset.augment=true",
    "run.batch_size=16",
    "run.epochs=2",
    "cluster.workers=2",
    "algorithm.momentum=0.9",
    "schedule.warmup_epochs=1",
)


def test_simulated_and_on_processes_synchronous_sgd_is_the_same_to_the_bit(tmp_path: Path):
    """101 samples: the last step of an epoch has three for worker 0 and two for worker 1."""
    overrides = ("algorithm=ssgd", "model=resnet8", *RUN)
    simulated = run_in(tmp_path / "simulated", *overrides)[1]
    code, real = run_in(tmp_path / "processes", *overrides, "cluster=processes")
    assert code == 0
    for key in ("weights_sha256", "updates", "samples", "epochs", "final_test_error", "dataset_fingerprint"):
        assert real[key] == simulated[key], key
    assert real["status"] == "completed"
    assert (real["clock"], simulated["clock"]) == ("measured", "virtual")
    assert 0 < real["seconds"] <= real["wall_seconds"]
    tensors = [load_file(tmp_path / name / "weights.safetensors") for name in ("simulated", "processes")]
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, rtol=1e-6, atol=1e-6)


LOCAL = ("algorithm.tau=3", "run.diagnostics=[disagreement]")


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=dasgd", "algorithm.delay=2", *LOCAL),
        ("algorithm=dc_ssgd",),
        pytest.param(("algorithm=local_sgd", *LOCAL), marks=pytest.mark.slow),
        pytest.param(("algorithm=lars",), marks=pytest.mark.slow),
    ],
    ids=lambda overrides: overrides[0],
)
def test_other_methods_too(overrides: tuple[str, ...], tmp_path: Path):
    simulated = run_in(tmp_path / "simulated", *overrides, "model=mlp", *RUN)[1]
    code, real = run_in(tmp_path / "processes", *overrides, "model=mlp", *RUN, "cluster=processes")
    assert code == 0
    for key in ("weights_sha256", "updates", "samples", "final_test_error"):
        assert real[key] == simulated[key], key
    if "run.diagnostics=[disagreement]" in overrides:
        here, there = (read_lines(tmp_path / name / "layers.jsonl") for name in ("simulated", "processes"))
        assert len(here) == len(there) == 2
        for a, b in zip(here, there, strict=True):
            assert a["disagreement"] == pytest.approx(b["disagreement"], rel=1e-5)
            assert all(apart > 0 for apart in a["disagreement"].values())


@pytest.mark.parametrize("lr", ["1e30"])
def test_an_infinite_loss_ends_all_ranks(lr: str, tmp_path: Path):
    overrides = ("algorithm=ssgd", "model=mlp", *RUN, "schedule.warmup_epochs=0", f"schedule.lr={lr}")
    code, summary = run_in(tmp_path, *overrides, "cluster=processes", "run.epochs=50")
    assert (code, summary["status"]) == (0, "diverged")
    assert summary["updates"] < 100
