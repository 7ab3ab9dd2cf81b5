import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report import archive
from runner.report.collect import collect

MakeRun = Callable[..., Path]


def test_each_run_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", [50.0])
    assert [run.name for run in collect([folder, tmp_path / "runs"])] == ["a"]


def test_sweep_folder_is_not_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    sweep = make_run("sweep/0", [50.0]).parent
    make_run("sweep/1", [50.0])
    (sweep / "multirun.yaml").write_text("hydra: {}\n")
    (sweep / ".hydra").mkdir()
    assert [run.name for run in collect([sweep])] == ["0", "1"]


def test_checkpoints_and_wandb_are_not_entered(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", [50.0])
    for inner in ("checkpoints", "wandb/run-1"):
        (folder / inner).mkdir(parents=True)
        (folder / inner / "summary.json").write_text("{}")
    assert len(collect([tmp_path])) == 1


def test_archives_are_found_below_folders(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("b/0", [50.0])
    archive.write(tmp_path / "kept" / "deep" / "table1.jsonl", collect([tmp_path / "runs"]))
    (tmp_path / "kept" / "notes.jsonl").write_text('{"a": 1}\n')
    assert [run.name for run in collect([tmp_path / "kept"])] == ["b/0"]
    assert [run.name for run in collect([tmp_path / "kept" / "deep" / "table1.jsonl"])] == ["b/0"]


def test_runs_are_ordered_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, name in enumerate(("a/0", "a/1", "a-b/0", "c")):
        make_run(name, [50.0], seed=seed)
    runs = collect([tmp_path / "runs"])
    archive.write(tmp_path / "kept" / "1.jsonl", [runs[3], runs[1]])
    archive.write(tmp_path / "kept" / "2.jsonl", [runs[2], runs[0]])
    assert [run.name for run in collect([tmp_path / "kept"])] == [run.name for run in runs]


@pytest.mark.parametrize("archive_first", [True, False])
def test_a_run_beside_its_archive_counts_once(make_run: MakeRun, tmp_path: Path, archive_first: bool) -> None:
    for seed in (0, 1):
        make_run(f"a/{seed}", [50.0], seed=seed)
    archive.write(tmp_path / "kept.jsonl", collect([tmp_path / "runs" / "a" / "0"]))
    paths = [tmp_path / "runs", tmp_path / "kept.jsonl"]
    found = collect(paths[::-1] if archive_first else paths)
    assert sorted(run.seed or 0 for run in found) == [0, 1]


def test_copied_folders_are_both_kept(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_run(name, [50.0], seed=name == "c")
    archive.write(tmp_path / "kept.jsonl", collect([tmp_path / "runs" / "c"]))
    assert [run.name for run in collect([tmp_path / "runs", tmp_path / "kept.jsonl"])] == ["a", "b", "c"]


def test_runs_that_only_began_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name / ".hydra").mkdir(parents=True)
    archive.write(tmp_path / "kept.jsonl", [])
    archive.write(tmp_path / "kept.jsonl", collect([tmp_path / "runs" / "a"]))
    assert len(collect([tmp_path / "runs", tmp_path / "kept.jsonl"])) == 3


def test_pipe_named_like_an_archive_is_passed_over(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0])
    os.mkfifo(tmp_path / f"b{archive.SUFFIX}")
    assert [run.name for run in collect([tmp_path])] == ["runs/a"]
