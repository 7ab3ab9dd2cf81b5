"""The folder of a run before and after it: one writer, nothing overwritten, nothing left by a mistake."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_folder_with_a_sweep_is_refused(tmp_path: Path):
    folders.check_sweep_folder(tmp_path, "hydra.sweep.dir")
    (tmp_path / "multirun.yaml").touch()
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
