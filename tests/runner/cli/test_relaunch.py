"""A launch that is started again finds the folder that it made."""

import json
from pathlib import Path

import pytest

from runner.cli import relaunch
from runner.config import launcher


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/torchelastic_x/none_y/attempt_0/0/error.json")


def run(folder: Path, *, checkpoint: bool = False) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").touch()
    if checkpoint:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "step-40.pt").touch()
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1.5}) + "\n")
    return folder


def test_a_launch_keeps_its_name(monkeypatch: pytest.MonkeyPatch):
    first = launcher.launch()
    assert first is not None
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/torchelastic_x/none_y/attempt_1/0/error.json")
    assert launcher.launch() == first
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/torchelastic_x/none_z/attempt_0/0/error.json")
    assert launcher.launch() not in (first, None)
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    assert launcher.launch() is None


@pytest.mark.parametrize("planned", ["runs/a", "runs/other", "runs-of-today/other"])
def test_its_folder_is_found(tmp_path: Path, planned: str):
    made = run(tmp_path / "runs" / "a")
    relaunch.remember(made)
    assert relaunch.earlier_folder(tmp_path / planned) == made


def test_another_launch_makes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = run(tmp_path / "runs" / "a")
    assert relaunch.earlier_folder(made) is None
    relaunch.remember(made)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/torchelastic_x/none_z/attempt_0/0/error.json")
    assert relaunch.earlier_folder(made) is None
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    assert relaunch.earlier_folder(made) is None


def test_how_far_it_had_come_is_said(tmp_path: Path):
    fresh, far = run(tmp_path / "fresh"), run(tmp_path / "far", checkpoint=True)
    begin = "started again by its launcher: the run had"
    assert relaunch.progress(fresh) == (
        f"{begin} not come to its first evaluation, and begins anew, as it had no checkpoint ({fresh})"
    )
    assert relaunch.progress(far) == f"{begin} come to epoch 1.5, and goes on from the checkpoint of update 40 ({far})"
