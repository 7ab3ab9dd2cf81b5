import json
from pathlib import Path

import pytest

from runner.cli import dcrun_fit
from tests.traces import ABOUT

MESSAGE = {"pulled": 0, "compute": 0.1, "waited": 0.002, "served": 0.001}


def test_config_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    about = ABOUT | {"workers": 1, "algorithm": "asgd", "model": "mlp", "dataset": "digits"}
    rows = [MESSAGE | {"worker": 0, "version": k, "batch": 0, "time": 0.133 * k} for k in range(5)]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [about, *rows]))
    assert dcrun_fit.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"# Fitted to 5 messages of {tmp_path}")
    assert "\nworkers: 1\n" in printed
    assert "  latency: 0.015\n" in printed


def test_folder_without_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert dcrun_fit.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("dcrun-fit: cluster.trace=")


def test_measured_seconds_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    about = ABOUT | {"workers": 2, "algorithm": "asgd", "model": "mlp", "dataset": "digits"}
    rows = [
        MESSAGE | {"worker": k % 2, "version": k, "batch": 0, "time": 0.1 * k, "compute": 1.0 + k} for k in range(5)
    ]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [about, *rows]))
    place = tmp_path / "measured.csv"
    assert dcrun_fit.main([str(tmp_path), "--delays", str(place)]) == 0
    assert place.read_text() == "worker_0,worker_1\n1.0,2.0\n3.0,4.0\n5.0,\n"
    assert f'compute:\n  delays: "{place}"\nnetwork:' in capsys.readouterr().out
    assert dcrun_fit.main([str(tmp_path), "--delays", str(tmp_path / "none" / "measured.csv")]) == 2
    assert capsys.readouterr().err.startswith("dcrun-fit: --delays=")
