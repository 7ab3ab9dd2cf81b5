import errno
import io
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from runner.run_folder.run_writer import SUMMARY_KEYS, RunWriter
from tests.disk import limited

CFG: dict[str, Any] = {
    "schedule": {"lr": 0.5},
    "logger": {"kind": "none", "mode": "offline", "project": "dcrun", "group": None},
}


def writer(folder: Path, *, virtual: bool = True, **logger: object) -> RunWriter:
    console = Console(file=io.StringIO(), width=200)
    cfg = {**CFG, "logger": {**CFG["logger"], **logger}}
    return RunWriter(folder, cfg, epochs=3, virtual=virtual, console=console)


def row(epoch: int, error: float | None, loss: float = 1.0) -> dict[str, Any]:
    return {
        "epoch": float(epoch),
        "samples": 100 * epoch,
        "updates": 10 * epoch,
        "seconds": 2.5 * epoch,
        "train_loss": loss,
        "test_error": error,
    }


def summary(folder: Path) -> dict[str, Any]:
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "summary.json").read_text(), parse_constant=refuse)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def printed(run: RunWriter) -> str:
    file = run.display.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_run_from_start_to_finish(tmp_path: Path):
    run = writer(tmp_path)
    run.start({"algorithm": "sgd", "workers": 1})
    assert summary(tmp_path)["status"] == "running"
    for epoch, error in ((1, 50.0), (2, 20.0), (3, 30.0)):
        run.progress(epoch=epoch, samples=100 * epoch, train_loss=1.0)
        run.log(row(epoch, error))
        assert metrics(tmp_path)[-1] == row(epoch, error)
    run.finish("completed", samples_per_second=12.0, weights_sha256="ab")
    done = summary(tmp_path)
    assert set(SUMMARY_KEYS) == set(done)
    expected = {
        "status": "completed",
        "algorithm": "sgd",
        "workers": 1,
        "epochs": 3.0,
        "samples": 300,
        "updates": 30,
        "seconds": 7.5,
        "clock": "virtual",
        "best_test_error": 20.0,
        "final_test_error": 30.0,
        "final_train_loss": 1.0,
        "samples_per_second": 12.0,
        "weights_sha256": "ab",
        "dataset_fingerprint": None,
    }
    assert {key: done[key] for key in expected} == expected
    assert 0 < done["wall_seconds"] < 60
    assert printed(run).count("epoch ") == 3
    assert f"run folder: {tmp_path}" in printed(run)
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "summary.json"]


def test_summary_tells_the_best_validation(tmp_path: Path):
    run = writer(tmp_path)
    run.start({})
    errors = ((50.0, 40.0), (20.0, 30.0), (25.0, 30.0), (10.0, 35.0), (30.0, None))
    for epoch, (tested, validated) in enumerate(errors, start=1):
        run.log({**row(epoch, tested), "validation_loss": validated and validated / 10, "validation_error": validated})
    run.finish("completed")
    done = summary(tmp_path)
    assert (done["best_validation_error"], done["final_validation_error"], done["best_validation_loss"]) == (
        30,
        None,
        3,
    )
    assert done["test_error_at_best_validation"] == 20.0, "of equally good evaluations the first"
    assert done["best_test_error"] == 10.0


def test_diverged_run_writes_strict_json(tmp_path: Path):
    run = writer(tmp_path, virtual=False)
    run.start({})
    run.log(row(1, 90.0, loss=math.nan))
    run.finish("diverged", final_train_loss=math.inf)
    assert metrics(tmp_path)[0]["train_loss"] is None
    assert summary(tmp_path)["final_train_loss"] is None
    assert summary(tmp_path)["clock"] == "measured"
    assert "smaller schedule.lr (it is 0.5)" in printed(run)


def test_run_finishes_once(tmp_path: Path):
    run = writer(tmp_path)
    run.start({})
    with pytest.raises(ValueError, match="status=running"):
        run.finish("running")
    run.finish("interrupted")
    run.finish("completed")
    assert summary(tmp_path)["status"] == "interrupted"
    with pytest.raises(RuntimeError):
        run.log(row(1, 1.0))


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("it broke\nbadly"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_exception_marks_the_run_failed(tmp_path: Path, error: BaseException, status: str):
    run = writer(tmp_path)

    def work() -> None:
        with run:
            run.start({})
            run.log(row(1, 50.0))
            raise error

    with pytest.raises(type(error)):
        work()
    assert summary(tmp_path)["status"] == status
    assert summary(tmp_path)["final_test_error"] == 50.0
    if status == "failed":
        assert summary(tmp_path)["error"] == "RuntimeError: it broke"
        assert "it broke" in printed(run)


def test_early_exception_leaves_the_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="wrong input"), writer(tmp_path):
        raise ValueError("wrong input")
    assert os.listdir(tmp_path) == []


def test_resumed_run_truncates_its_metrics(tmp_path: Path):
    run = writer(tmp_path)
    run.start({})
    run.log(row(1, 10.0))
    run.log(row(2, 60.0))
    state = run.state_dict()
    assert json.loads(json.dumps(state)) == state
    run.log(row(3, 1.0))  # after the checkpoint: will come again
    run.finish("interrupted")

    again = writer(tmp_path)
    again.start({}, resumed={**state, "wall_seconds": 1000.0})
    assert metrics(tmp_path) == [row(1, 10.0), row(2, 60.0)]
    again.log(row(3, 40.0))
    assert again.state_dict()["rows"] == 3
    again.finish("completed")
    assert metrics(tmp_path) == [row(1, 10.0), row(2, 60.0), row(3, 40.0)]
    done = summary(tmp_path)
    assert (done["best_test_error"], done["final_test_error"], done["status"]) == (10.0, 40.0, "completed")
    assert 1000.0 < done["wall_seconds"] < 1060.0


def test_new_run_in_an_old_folder(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1.0, "test_error": 0.5}\n')
    run = writer(tmp_path)
    run.start({})
    run.log(row(1, 50.0))
    run.finish("completed")
    assert metrics(tmp_path) == [row(1, 50.0)]
    assert summary(tmp_path)["best_test_error"] == 50.0


def test_without_wandb_neither_it_nor_torch_is_imported(tmp_path: Path):
    program = f"""
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from runner.run_folder.run_writer import RunWriter
for kind, mode in (("none", "offline"), ("wandb", "disabled")):
    logger = {{"kind": kind, "mode": mode, "project": "p", "group": None}}
    run = RunWriter(Path({str(tmp_path)!r}), {{"logger": logger}}, epochs=1, virtual=True)
    run.start({{}})
    run.finish("completed")
assert "wandb" not in sys.modules and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


OFFLINE = """
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from runner.run_folder.run_writer import RunWriter
cfg = {"seed": 3, "logger": {"kind": "wandb", "mode": "offline", "project": "p", "group": "sweep-1"}}
with RunWriter(Path(sys.argv[1]), cfg, epochs=1, virtual=True) as run:
    run.start({"algorithm": "sgd"})
    run.log({"epoch": 1.0, "test_error": 12.5})
    if sys.argv[2] == "fail":
        raise RuntimeError("it broke")
    run.finish("completed")
"""


@pytest.mark.parametrize("end", ["completed", "fail"])
def test_wandb_is_offline_in_the_run_folder(tmp_path: Path, end: str):
    # A key, a server and a mode in the environment are no permission to go online.
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    environment = {
        **os.environ,
        "WANDB_MODE": "online",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
        "HOME": str(tmp_path / "home"),
    }
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", OFFLINE, str(folder), end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    with server, pytest.raises(BlockingIOError):  # nobody has called
        server.accept()
    assert done.returncode == (end == "fail"), done.stderr
    assert "wandb:" not in done.stdout + done.stderr
    files = list(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    for part in (b"sweep-1", b"test_error", b"12.5", b"seed"):
        assert part in content
    if end == "completed":
        assert b"completed" in content
        assert done.stderr == ""
    else:
        assert b"failed" in content
        assert summary(folder)["status"] == "failed"


def test_wandb_that_cannot_begin_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"^logger=wandb: .*allowed: none"):
        writer(tmp_path, kind="wandb").start({})
    with pytest.raises(ValueError, match=r"^logger\.mode=cloud: .*allowed: offline, online, disabled"):
        writer(tmp_path, kind="wandb", mode="cloud").start({})
    assert os.listdir(tmp_path) == []


def test_broken_wandb_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    began = threading.Event()

    class Broken:
        def __init__(self, *arguments: object, **options: object) -> None:
            self.id = options["id"]
            began.wait(10)

        def define_metric(self, *arguments: object, **options: object) -> None: ...

        def log(self, *arguments: object, **options: object) -> None:
            raise ConnectionError("the service is gone")

    class Module:
        init = Broken
        Settings = dict

    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "wandb", Module)
    run = writer(tmp_path, kind="wandb")
    run.start({})
    assert os.environ["WANDB_MODE"] == "offline"
    run.log(row(1, 50.0))
    run.log(row(2, 40.0))
    assert len(metrics(tmp_path)) == 2, "nobody waits for wandb to begin"
    assert re.fullmatch("[a-z0-9]{8}", run.state_dict()["wandb_id"])
    began.set()
    run.finish("completed")
    assert len(metrics(tmp_path)) == 2
    assert summary(tmp_path)["status"] == "completed"
    assert caplog.text.count("the service is gone") == 1


def test_full_disk_costs_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = writer(tmp_path)
    run.start({})
    run.log(row(1, 10.0))
    with limited((tmp_path / "metrics.jsonl").stat().st_size + 10):
        run.log(row(2, 20.0))
        assert not run.write_rows(), "a checkpoint must not count it"
    assert metrics(tmp_path) == [row(1, 10.0)]
    assert "metrics.jsonl could not be written (File too large); the run goes on" in caplog.text
    run.log(row(3, 30.0))
    assert run.write_rows()
    run.finish("completed")
    assert metrics(tmp_path) == [row(1, 10.0), row(2, 20.0), row(3, 30.0)]


def test_summary_says_the_end_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = writer(tmp_path)
    run.start({})

    def full(path: Path, document: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("runner.run_folder.run_writer.write_document", full)
    run.finish("completed")
    assert summary(tmp_path)["status"] == "completed"


@pytest.mark.parametrize(("status", "failed"), [("interrupted", 0), ("completed", 0), ("failed", 1), ("diverged", 1)])
def test_wandb_is_told_of_failures_only(status: str, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ended = []
    run = writer(tmp_path)
    run.start({})
    run._loggers._wandb = SimpleNamespace(finish=lambda summary, failed: ended.append(failed))  # type: ignore[assignment]
    run.finish(status)
    assert ended == [bool(failed)]
