"""The folder of a run before and after it: one writer, nothing overwritten, nothing left by a mistake."""

import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.run_folder import folders


def test_run_folder_has_one_writer(tmp_path: Path):
    assert not folders.is_locked(tmp_path)
    code = "import sys, time, pathlib; from runner.run_folder.folders import run_lock\n"
    code += "with run_lock(pathlib.Path(sys.argv[1])):\n"
    code += "    print('in', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(Path(folders.__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        assert folders.is_locked(tmp_path)
        with pytest.raises(InputError, match="is being written by a process that runs"), folders.run_lock(tmp_path):
            pass
        other.kill()
    assert not folders.is_locked(tmp_path)


def test_nested_locks_are_one(tmp_path: Path):
    with folders.run_lock(tmp_path):
        with folders.run_lock(tmp_path / ".." / tmp_path.name):
            pass
        assert folders.is_locked(tmp_path)
    assert not folders.is_locked(tmp_path)


def test_new_folder_is_locked_before_anything_is_in_it(tmp_path: Path):
    folder = tmp_path / "outputs" / "a"
    with folders.new_run_folder(folder, "hydra.run.dir"):
        assert folders.is_locked(folder)
        assert list(folder.iterdir()) == []
    assert not folders.is_locked(folder)


def test_folder_that_is_locked_stays_empty(tmp_path: Path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with (
        pytest.raises(InputError, match=r"^hydra\.run\.dir=.*: is being written by a process that runs"),
        folders.new_run_folder(tmp_path, "hydra.run.dir"),
    ):
        pass
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_folder_whose_run_ended_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = folders._lock_or_refuse

    def late(*arguments: Any) -> None:
        lock(*arguments)
        (tmp_path / "summary.json").write_text('{"status": "completed"}')

    monkeypatch.setattr(folders, "_lock_or_refuse", late)
    with pytest.raises(InputError, match="already holds a run"), folders.new_run_folder(tmp_path, "hydra.run.dir"):
        pass


def test_folder_that_its_run_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, lock, removed = tmp_path / "a", folders._lock_or_refuse, []

    def late(*arguments: Any) -> None:
        if not removed:
            folder.rmdir()
            removed.append(folder)
        lock(*arguments)

    monkeypatch.setattr(folders, "_lock_or_refuse", late)
    with folders.new_run_folder(folder, "hydra.run.dir"):
        assert removed
        assert folders.is_locked(folder), "the lock is that of the folder that is there"


def _keep(lock: folders.SharedLock, pipe: Connection) -> None:
    with folders.run_lock(lock.folder):
        pipe.send("in")
        pipe.recv()


def test_spawned_process_shares_the_lock(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_keep, args=(folders.SharedLock(tmp_path), theirs))
    with folders.run_lock(tmp_path):
        process.start()
        assert ours.poll(60)
        assert ours.recv() == "in"
    assert folders.is_locked(tmp_path), "the launcher is gone, the rank still writes"
    ours.send("out")
    process.join(60)
    assert not folders.is_locked(tmp_path)


def test_only_a_running_run_is_marked_interrupted(tmp_path: Path):
    summary = tmp_path / "summary.json"
    for before, better, after in (
        ("running", False, "interrupted"),
        ("interrupted", True, "interrupted"),
        ("completed", True, "completed"),
    ):
        summary.write_text(json.dumps({"status": before, "seed": 3}))
        folders.mark_interrupted(tmp_path, "gone", better=better)
        found = json.loads(summary.read_text())
        assert found["status"] == after
        assert found["seed"] == 3
        assert found.get("error") == ("gone" if after == "interrupted" else None)
    summary.write_text('{"status": "interrupted", "error": "its own"}')
    folders.mark_interrupted(tmp_path, "gone")
    assert json.loads(summary.read_text())["error"] == "its own"
    # Of a run that was still being built: readers find every key.
    summary.unlink()
    folders.mark_interrupted(tmp_path, "gone")
    found = json.loads(summary.read_text())
    assert (found["status"], found["error"], found["workers"]) == ("interrupted", "gone", None)


def test_folders_of_earlier_jobs_stay(tmp_path: Path):
    assert folders.free_folder(tmp_path / "0") == tmp_path / "0"
    (tmp_path / "0").mkdir()
    (tmp_path / "0-2").mkdir()
    assert folders.free_folder(tmp_path / "0") == tmp_path / "0-3"


def test_folder_with_a_run_is_refused(tmp_path: Path):
    folders.check_run_folder(tmp_path / "new" / "deep", "hydra.run.dir")
    (tmp_path / "summary.json").write_text('{"status": "completed"}')
    with pytest.raises(InputError, match=r"^hydra\.run\.dir=.*: already holds a run \(completed\); continue that run"):
        folders.check_run_folder(tmp_path, "hydra.run.dir")
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        folders.check_run_folder(tmp_path, "hydra.run.dir")


@pytest.mark.parametrize("left", ["multirun.yaml", "0/.hydra/config.yaml"], ids=["Hydra's", "an experiment's"])
def test_folder_with_a_sweep_is_refused(left: str, tmp_path: Path):
    folders.check_sweep_folder(tmp_path, "hydra.sweep.dir")
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).touch()
    with pytest.raises(InputError, match=r"^hydra\.sweep\.dir=.*: already holds a sweep"):
        folders.check_sweep_folder(tmp_path, "hydra.sweep.dir")


def test_file_in_the_way_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^run\.resume=.*cannot be written"):
        folders.check_writable(tmp_path / "file", "run.resume")


def test_only_new_folders_are_discarded(tmp_path: Path):
    run = tmp_path / "outputs" / "a" / "run"
    existing = folders.nearest_existing(run)
    assert existing == tmp_path
    (run / ".hydra").mkdir(parents=True)
    (run / "dcrun.log").touch()
    folders.discard(run, existing)
    assert list(tmp_path.iterdir()) == [], "the folders that were made for it go too"
    run.mkdir(parents=True)
    (run / "weights.safetensors").touch()
    folders.discard(run, existing)
    assert (run / "weights.safetensors").exists(), "a run's results are never discarded"
    other = run.with_name("other")
    other.mkdir()
    folders.discard(other, existing)
    assert [path.name for path in run.parent.iterdir()] == ["run"], "what a neighbour needs stays"


def test_link_that_leads_nowhere_is_refused(tmp_path: Path):
    (tmp_path / "outputs").symlink_to(tmp_path / "gone" / "below")
    place = tmp_path / "outputs" / "a"
    with (
        pytest.raises(
            InputError, match=r"^hydra.run.dir=\S+: cannot be made \(.+\); allowed: a folder you may write to$"
        ),
        folders.new_run_folder(place, "hydra.run.dir"),
    ):
        pass


def test_name_that_is_too_long_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"^hydra.run.dir=\S+: cannot be used \(File name too long\); allowed: "):
        folders.check_run_folder(tmp_path / ("x" * 300), "hydra.run.dir")
