import errno
import json
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from models.resnet import ResNet
from runner.run_folder.fingerprint import weights_sha256
from runner.run_folder.machine import peak_memory_bytes
from runner.run_folder.run_writer import SUMMARY_KEYS
from tests.disk import limited
from tests.trial import compose, dispatch, rows, run_in

RUN = ("dataset.limit_train=128", "dataset.limit_test=40", "run.batch_size=16", "run.epochs=2", "model=resnet8")
# The contract of the run folder, for reports and tools.
SUMMARY = [
    "status",
    "algorithm",
    "model",
    "dataset",
    "cluster",
    "workers",
    "seed",
    "epochs",
    "samples",
    "updates",
    "parameters",
    "best_test_error",
    "final_test_error",
    "final_train_loss",
    "seconds",
    "wall_seconds",
    "start_seconds",
    "samples_per_second",
    "peak_memory_bytes",
    "workers_lost",
    "weights_sha256",
    "buffers_sha256",
    "dataset_fingerprint",
    "threads",
    "device",
    "git_commit",
    "versions",
]
ROW = [
    "epoch",
    "samples",
    "updates",
    "seconds",
    "train_loss",
    "train_error",
    "test_loss",
    "test_error",
    "lr",
    "staleness_mean",
    "staleness_max",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    code, summary = run_in(folder, "algorithm=dc_asgd_a", *RUN, "seed=3")
    assert code == 0
    return folder, summary


def test_summary_has_every_promised_key(finished: tuple[Path, dict[str, Any]]):
    _, summary = finished
    assert set(SUMMARY) <= set(summary)
    assert set(SUMMARY) <= set(SUMMARY_KEYS)
    expected = {
        "status": "completed",
        "algorithm": "dc_asgd_a",
        "model": "resnet8",
        "dataset": "digits",
        "cluster": "simulated",
        "workers": 4,
        "seed": 3,
        "epochs": 2,
        "samples": 256,
        "updates": 16,
        "workers_lost": 0,
        "threads": 1,
        "device": "cpu",
    }
    assert {key: summary[key] for key in expected} == expected
    assert summary["samples_per_second"] > 0
    assert summary["peak_memory_bytes"] > 1e7
    assert len(summary["dataset_fingerprint"]) == len(summary["buffers_sha256"]) == 64


def test_rows_and_summary_agree(finished: tuple[Path, dict[str, Any]]):
    folder, summary = finished
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in metrics] == [1.0, 2.0]
    assert all(set(ROW) <= set(row) for row in metrics)
    assert summary["final_test_error"] == metrics[-1]["test_error"]
    assert summary["best_test_error"] == min(row["test_error"] for row in metrics)
    assert summary["final_train_loss"] == metrics[-1]["train_loss"]
    assert summary["seconds"] == metrics[-1]["seconds"]


def test_model_is_an_ordinary_state_dict(finished: tuple[Path, dict[str, Any]]):
    folder, summary = finished
    state = load_file(folder / "weights.safetensors")
    network = ResNet(depth=8, shape=(1, 8, 8), classes=10)
    network.load_state_dict(state, strict=True)
    assert weights_sha256(network.named_parameters()) == summary["weights_sha256"]
    assert summary["parameters"] == sum(p.numel() for p in network.parameters())


def test_workers_activity_is_written(finished: tuple[Path, dict[str, Any]]):
    folder, summary = finished
    report = json.loads((folder / "workers.json").read_text())
    assert sum(worker["gradients"] for worker in report["workers"]) == 16
    assert sum(report["staleness"].values()) == 16
    assert report["seconds"] == summary["seconds"]
    assert sum('"compute"' in line for line in (folder / "timeline.jsonl").read_text().splitlines()) == 16


@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
def test_diverged_run_writes_its_summary(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, summary = run_in(tmp_path, f"algorithm={algorithm}", *RUN, "schedule.lr=1e30", "run.epochs=40")
    assert (code, summary["status"]) == (0, "diverged")
    assert summary["epochs"] < 40
    assert set(SUMMARY) <= set(summary)
    # Strict JSON: what is not a number is null.
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} in metrics.jsonl"))
    shown = capsys.readouterr().out
    assert "diverged" in shown
    assert "schedule.lr" in shown
    assert "warm" in shown


def test_exploded_run_has_diverged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    exploding = ("algorithm=asgd", *RUN, "model=mlp", "schedule.lr=1000", "run.epochs=3")
    code, summary = run_in(tmp_path / "a", *exploding)
    assert (code, summary["status"], summary["epochs"]) == (0, "diverged", 1.0)
    assert summary["final_train_loss"] > 2300
    assert "over 1000 times that of the first update" in summary["error"]
    assert "The training loss is" in capsys.readouterr().out
    code, summary = run_in(tmp_path / "b", *exploding, "run.divergence_factor=null")
    assert (code, summary["status"], summary["epochs"]) == (0, "completed", 3.0)


@pytest.mark.parametrize("algorithm", ["dc_asgd_a", "ssgd", "sgd"])
def test_estimate_trains_and_writes_nothing(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code = dispatch(compose(f"algorithm={algorithm}", *RUN, "run.estimate=true"), tmp_path)
    assert code == 0
    assert not list(tmp_path.iterdir())
    shown = capsys.readouterr().out
    parameters = sum(p.numel() for p in ResNet(depth=8, shape=(1, 8, 8), classes=10).parameters())
    assert f"{parameters:,}" in shown
    assert "expected wall time" in shown


def test_run_evaluates_at_its_end(tmp_path: Path):
    code, summary = run_in(tmp_path, "algorithm=asgd", *RUN, "run.epochs=0.5", "run.eval_every=0.2")
    assert (code, summary["epochs"]) == (0, 0.5)
    assert rows(tmp_path) == 2, "after the update that passed 0.2, and at the end"


def test_fresh_run_ignores_older_checkpoints(tmp_path: Path):
    run_in(tmp_path, "algorithm=asgd", *RUN)
    assert list((tmp_path / "checkpoints").glob("*.pt"))
    # Diverges before its own first checkpoint.
    assert run_in(tmp_path, "algorithm=asgd", *RUN, "schedule.lr=1e30")[1]["status"] == "diverged"
    assert not list((tmp_path / "checkpoints").glob("*.pt"))


def test_full_disk_at_the_end_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(folder: Path, state: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    overrides = ("algorithm=asgd", *RUN)
    expected = run_in(tmp_path / "whole", *overrides)[1]
    folder = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr("runner.run_folder.weights.write", full)
        code, summary = run_in(folder, *overrides)
    assert (code, summary["status"]) == (1, "interrupted")
    assert summary["error"] == "the result could not be written (No space left on device)"
    assert "make room, then continue it with run.resume=" in caplog.text
    code, summary = run_in(folder, *overrides, f"run.resume={folder}")
    assert (code, summary["status"]) == (0, "completed")
    assert {key: summary[key] for key in ("weights_sha256", "epochs", "updates")} == {
        key: expected[key] for key in ("weights_sha256", "epochs", "updates")
    }
    assert rows(folder) == rows(tmp_path / "whole")
    assert (folder / "weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()


def test_full_disk_all_along_costs_what_did_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with limited(9000):
        code, summary = run_in(tmp_path, "algorithm=asgd", *RUN)
    assert (code, summary["status"]) == (1, "interrupted")
    assert summary["error"] == "the result could not be written (File too large)"
    assert "(File too large); make room, then start it again" in caplog.text
    assert rows(tmp_path) == 2
    assert not list(tmp_path.glob("**/.*.tmp")), "nothing half written"


def test_files_have_the_users_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        run_in(tmp_path / "a", "algorithm=asgd", *RUN, "cluster.record=true", "run.diagnostics=[variance_factor]")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*")}
    assert len(modes) >= 8
    assert set(modes.values()) == {0o640, 0o750}, modes


WORKERS = 8
LARGE = (
    "algorithm=dc_asgd_a",
    f"cluster.workers={WORKERS}",
    "model=mlp",
    "dataset=synthetic",
    "dataset.train=64",
    "dataset.test=20",
    "run.batch_size=8",
    "run.epochs=2",
)


def _peak(pipe: Connection, folder: Path, wide: str) -> None:
    """Run a small network, then a large one; send the growth of this process's memory and the large one's size."""
    run_in(folder / "small", *LARGE, "model.widths=[64]")
    status = Path("/proc/self/status").read_text().splitlines()
    before = int(next(line for line in status if line.startswith("VmRSS")).split()[1])
    summary = run_in(folder / "large", *LARGE, wide)[1]
    pipe.send((peak_memory_bytes() - 1024 * before, 4 * summary["parameters"]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's memory from /proc")
def test_simulation_holds_m_plus_six_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """M backups; weights, MeanSquare, the replica's weights and gradients; the rest is for what comes and goes."""
    # Else the C library keeps what was freed in pieces of up to 32 MB, and how much of it differs from run to run.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**20))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # 10.5 million weights, of which the largest layer has a third.
    process = context.Process(target=_peak, args=(theirs, tmp_path, "model.widths=[1800,1800,1800,1800]"))
    process.start()
    assert ours.poll(120)
    grown, vector = ours.recv()
    process.join(30)
    assert vector > 36e6
    assert WORKERS < grown / vector <= WORKERS + 6
