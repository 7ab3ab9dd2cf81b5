"""What launchers, reports and resumed runs read of a run folder."""

import json
from pathlib import Path

import pytest

from runner.run_folder.contents import checkpoint_files, has_checkpoints, read_metrics, read_summary
from runner.run_folder.resume import _status


def test_folder_without_files(tmp_path: Path):
    assert read_summary(tmp_path) == {}
    assert read_metrics(tmp_path) == []
    assert checkpoint_files(tmp_path) == []
    assert not has_checkpoints(tmp_path)


def test_summary_that_is_damaged(tmp_path: Path):
    (tmp_path / "summary.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"summary\.json holds no JSON object"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"status": "comp')
    with pytest.raises(ValueError, match="line 1"):
        read_summary(tmp_path)
    assert _status(tmp_path) is None, "an earlier run that cannot be read is not matched, and stops no sweep"


def test_summary_and_metrics_as_written(tmp_path: Path):
    (tmp_path / "summary.json").write_text(json.dumps({"status": "completed", "workers": 4}))
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1.0}\n{"epoch": 2.0}\n{"epo')
    assert read_summary(tmp_path) == {"status": "completed", "workers": 4}
    assert _status(tmp_path) == "completed"
    assert read_metrics(tmp_path) == [{"epoch": 1.0}, {"epoch": 2.0}], "the torn last line is left out"


def test_checkpoints_newest_first(tmp_path: Path):
    place = tmp_path / "checkpoints"
    place.mkdir()
    (place / ".step-000000000300.pt.tmp").touch()
    (place / "notes.txt").touch()
    assert not has_checkpoints(tmp_path), "half a file is nothing to go on from"
    for number in (20, 100, 3):
        (place / f"step-{number:012d}.pt").touch()
    assert [number for number, _ in checkpoint_files(tmp_path)] == [100, 20, 3]
    assert has_checkpoints(tmp_path)
