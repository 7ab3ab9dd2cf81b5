import errno
import io
import logging
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.run_folder import checkpoint


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "w": torch.full((1000,), value),
        "bf16": torch.full((3, 2), value, dtype=torch.bfloat16),
        "events": [{"time": 0.1, "worker": 3, "batch": (1, 2)}, None],
        "seed": 2**63 - 1,
        "name": "asgd",
        "flags": [True, False],
        "workers": {0: "idle"},
    }


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "checkpoints"))


def loaded(folder: Path) -> tuple[dict[str, Any], Path]:
    found = checkpoint.newest_intact(folder)
    assert found is not None
    return found


def test_what_is_saved_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "dcrun"):
        path = checkpoint.save(tmp_path, 7, state(), keep=2)
    assert path is not None
    assert caplog.messages == [f"checkpoint {path.name}"]
    content, source = loaded(tmp_path)
    assert source == path
    for key in ("w", "bf16"):
        assert torch.equal(content.pop(key), state()[key])
    assert content == {key: value for key, value in state().items() if key not in ("w", "bf16")}


def test_no_checkpoint_before_the_first(tmp_path: Path):
    assert checkpoint.newest_intact(tmp_path) is None


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (8, 9, 10, 11):
        checkpoint.save(tmp_path, step, state(step), keep=2)
    assert [name.lstrip("step-0")[:2] for name in names(tmp_path)] == ["10", "11"]
    assert loaded(tmp_path)[0]["w"][0] == 11


def damage_truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_last_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def damage_empty(path: Path) -> None:
    os.truncate(path, 0)


def damage_longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def damage_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_truncate, damage_last_byte, damage_empty, damage_longer, damage_bit])
def test_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any):
    checkpoint.save(tmp_path, 1, state(1), keep=3)
    newest = checkpoint.save(tmp_path, 2, state(2), keep=3)
    assert newest is not None
    damage(newest)
    with caplog.at_level(logging.WARNING, "dcrun"):
        content, path = loaded(tmp_path)
    assert content["w"][0] == 1
    assert path.name == "step-000000000001.pt"
    assert str(newest) in caplog.text
    damage(path)
    assert checkpoint.newest_intact(tmp_path) is None


def test_saving_after_resume_removes_newer_checkpoints(tmp_path: Path):
    for step in (100, 200, 300):
        checkpoint.save(tmp_path, step, state(step), keep=3)
    damage_bit(tmp_path / "checkpoints" / "step-000000000300.pt")
    assert loaded(tmp_path)[0]["w"][0] == 200
    checkpoint.save(tmp_path, 250, state(250), keep=2)
    assert names(tmp_path) == ["step-000000000200.pt", "step-000000000250.pt"]


def test_full_disk_keeps_older_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    checkpoint.save(tmp_path, 1, state(1), keep=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel itself refuses the write in the middle of the file, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with caplog.at_level(logging.INFO, "dcrun"):
            assert checkpoint.save(tmp_path, 2, {"w": torch.zeros(100_000)}, keep=1) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "step-000000000002.pt could not be written (File too large)" in caplog.text
    assert names(tmp_path) == ["step-000000000001.pt"]
    assert loaded(tmp_path)[0]["w"][0] == 1


def test_write_that_fails_once_fails_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """The disk is full for a moment: what comes after would be written, and lack the middle."""

    class Disk(io.FileIO):
        writes = 0

        def write(self, data: Any) -> int:
            Disk.writes += 1
            if Disk.writes == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(checkpoint, "open", Disk, raising=False)
    assert checkpoint.save(tmp_path, 1, state(1), keep=1) is None
    assert Disk.writes == 3, "nothing is written after it"
    assert "step-000000000001.pt could not be written (No space left on device)" in caplog.text
    assert names(tmp_path) == []


def test_checkpoint_appears_under_its_final_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*arguments: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", refuse)
    with caplog.at_level(logging.INFO, "dcrun"), pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 1, state(), keep=1)
    assert caplog.messages == []
    assert names(tmp_path) == []


def test_half_written_checkpoint_is_never_loaded(tmp_path: Path):
    checkpoint.save(tmp_path, 1, state(1), keep=1)
    left = tmp_path / "checkpoints" / ".step-000000000002.pt.tmp"
    left.write_bytes(b"half")
    assert loaded(tmp_path)[0]["w"][0] == 1
    checkpoint.save(tmp_path, 3, state(3), keep=1)
    assert names(tmp_path) == ["step-000000000003.pt"]


def test_checkpoint_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    monkeypatch.setattr(checkpoint, "_check", lambda value, where: None)
    assert checkpoint.save(tmp_path, 1, {"evil": Evil()}, keep=1) is not None
    assert checkpoint.newest_intact(tmp_path) is None
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [np.float64(1.0), np.zeros(2), {1, 2}, pickle, torch.float32])
def test_unloadable_state_is_refused_when_saving(tmp_path: Path, value: object):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\]: a checkpoint cannot hold"):
        checkpoint.save(tmp_path, 1, {"a": [1, value]}, keep=1)
    with pytest.raises(TypeError, match="cannot hold the key"):
        checkpoint.save(tmp_path, 1, {(1, 2): 3}, keep=1)  # pyright: ignore[reportArgumentType]
    assert checkpoint.newest_intact(tmp_path) is None


def test_keeping_none_is_wrong_input(tmp_path: Path):
    with pytest.raises(ValueError, match=r"run\.keep_checkpoints=0"):
        checkpoint.save(tmp_path, 1, state(), keep=0)


def test_clear_forgets_an_earlier_run(tmp_path: Path):
    checkpoint.save(tmp_path, 1, state(), keep=1)
    checkpoint.clear(tmp_path)
    assert checkpoint.newest_intact(tmp_path) is None
