import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runner.cli import main
from runner.config.errors import InputError
from tests.trial import SMALL, dcrun, interrupt, rows, run_in, when

RUN = (
    "algorithm=dc_asgd_a",
    "model=resnet8",
    "dataset.limit_train=96",
    "dataset.limit_test=20",
    "dataset.augment=true",
    "run.batch_size=8",
    "run.epochs=5",
    "run.eval_every=0.25",
    "algorithm.momentum=0.9",
    "cluster.compute.distribution=gamma",
    "schedule.warmup_epochs=1",
)
CONTRACT = (
    *("weights_sha256", "buffers_sha256", "epochs", "samples", "updates", "seconds", "final_test_error"),
    "bytes_sent",
)


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def metrics(folder: Path) -> str:
    return (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    code, _ = run_in(folder, *RUN)
    assert code == 0
    return folder


def expect(folder: Path, whole: Path) -> None:
    """The run in `folder` ended as if nothing had stopped it."""
    ours, theirs = summary(folder), summary(whole)
    assert ours["status"] == "completed"
    assert {key: ours[key] for key in CONTRACT} == {key: theirs[key] for key in CONTRACT}
    assert metrics(folder) == metrics(whole)
    assert (folder / "timeline.jsonl").read_text() == (whole / "timeline.jsonl").read_text()
    assert (folder / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def stopped(folder: Path, number: signal.Signals, *overrides: str) -> int:
    """Run in this process, send it a signal after the second evaluation, and return the exit code."""
    thread = when(lambda: rows(folder) > 1, lambda: interrupt(number))
    code, _ = run_in(folder, *RUN, *overrides)
    thread.join(30)
    return code


def resume(folder: Path) -> int:
    return run_in(folder, *RUN, f"run.resume={folder}")[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_random_kills_leave_the_result_unchanged(seed: int, whole: Path, tmp_path: Path):
    folder, moments = tmp_path / "killed", random.Random(seed)
    process = dcrun(*SMALL, *RUN, f"hydra.run.dir={folder}")
    before = 0
    for _ in range(2):
        # Some evaluations, and so checkpoints, later; and anywhere between two of them.
        while rows(folder) < before + 2 and process.is_alive():
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        assert process.is_alive(), "the run was over before it could be killed"
        process.kill()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        assert summary(folder)["status"] == "running"
        before = rows(folder)
        process = dcrun(f"run.resume={folder}")
    process.join(120)
    assert process.exitcode == 0
    expect(folder, whole)


def test_killed_before_its_first_checkpoint(tmp_path: Path):
    folder = tmp_path / "early"
    process = dcrun(*SMALL, *RUN, "run.eval_every=5", f"hydra.run.dir={folder}")
    while not (folder / "metrics.jsonl").exists() and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join(30)
    assert not list(folder.glob("checkpoints/*"))
    with pytest.raises(InputError, match=f"^run.resume={folder}: holds no intact checkpoint"):
        run_in(folder, *RUN, f"run.resume={folder}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_a_resumable_run(number: signal.Signals, code: int, whole: Path, tmp_path: Path):
    handler = signal.getsignal(number)
    assert stopped(tmp_path, number) == code
    assert signal.getsignal(number) is handler
    saved = summary(tmp_path)
    assert saved["status"] == "interrupted"
    assert 0 < saved["updates"] < 60
    newest = max((tmp_path / "checkpoints").glob("step-*.pt"))
    assert int(newest.stem.split("-")[1]) == saved["updates"], "the last update was saved"
    assert resume(tmp_path) == 0
    expect(tmp_path, whole)


def test_damaged_checkpoints_are_passed_over(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert stopped(tmp_path, signal.SIGTERM) == 143
    newest = max((tmp_path / "checkpoints").glob("step-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    assert resume(tmp_path) == 0
    expect(tmp_path, whole)
    assert any(f"checkpoint {newest} is damaged" in line for line in caplog.messages)


def test_exit_code_of_a_stopped_command(tmp_path: Path):
    folder = tmp_path / "run"
    process = dcrun(*SMALL, *RUN, "run.epochs=10000", f"hydra.run.dir={folder}")
    while rows(folder) < 1 and process.is_alive():
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert (process.exitcode, summary(folder)["status"]) == (143, "interrupted")


def test_a_completed_run_prints_its_result(whole: Path, capsys: pytest.CaptureFixture[str]):
    before = summary(whole)
    assert resume(whole) == 0
    assert summary(whole) == before
    assert "completed" in capsys.readouterr().out


def test_only_a_run_folder_can_be_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main.main([*SMALL, f"run.resume={tmp_path / 'nowhere'}"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main.main([*SMALL, f"run.resume={tmp_path}"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    (tmp_path / "jobs.jsonl").touch()
    assert main.main([*SMALL, f"run.resume={tmp_path}"]) == 2
    assert "is the folder of a sweep; allowed: the folder of one of its jobs" in capsys.readouterr().err
