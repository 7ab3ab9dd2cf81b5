"""What goes on where: recorded command lines for replays, and the earlier runs of a sweep's jobs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.cli.compose import composer
from runner.config import schema
from runner.config.errors import InputError
from runner.config.schema import Config
from runner.run_folder import folders
from runner.run_folder.resume import EarlierRuns, recorded_overrides, run_folder, stored_config
from runner.sweeps import experiment_sweeper


def folder_of(tmp_path: Path, *overrides: str) -> Path:
    folder = tmp_path / "recorded"
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    (folder / "trace.jsonl").touch()
    return folder


RECORDED = (
    "algorithm=asgd",
    "algorithm.momentum=0.9",
    "cluster=processes",
    "cluster.workers=4",
    "run.name=mine",
    "seed=3",
)


def test_replay_takes_recorded_overrides(tmp_path: Path):
    folder = folder_of(tmp_path, *RECORDED, "run.epochs=2", "logger=none", "hydra.run.dir=outputs/recorded")
    for place in (folder, folder / "trace.jsonl"):
        given = ["cluster=replay", f"cluster.trace={place}"]
        assert recorded_overrides(given) == ["algorithm=asgd", "algorithm.momentum=0.9", "seed=3", "run.epochs=2"]


def test_typed_overrides_beat_recorded(tmp_path: Path):
    folder = folder_of(tmp_path, *RECORDED, "run.epochs=2")
    given = ["algorithm=dc_asgd_a", "run.epochs=1", "cluster=replay", f"cluster.trace={folder}"]
    assert recorded_overrides(given) == ["seed=3"]
    assert recorded_overrides([*given[2:], "algorithm.momentum=0"]) == ["algorithm=asgd", "seed=3", "run.epochs=2"]


def test_cell_of_an_experiment_is_replayed(tmp_path: Path):
    recorded = (*RECORDED, "experiment=dc_asgd_icml2017/table1", "run.resume=null", "hydra.mode=RUN", "scale=quick")
    given = ["cluster=replay", f"cluster.trace={folder_of(tmp_path, *recorded)}"]
    taken = recorded_overrides(given)
    assert taken[-2:] == ["hydra.mode=RUN", "run.resume=null"]
    assert recorded_overrides([*given, "run.resume=a"])[-1] == "hydra.mode=RUN"
    schema.register()
    experiment_sweeper.register()
    with composer() as compose:
        [cfg] = compose.jobs([*taken, *given], multirun=False)
    assert (cfg.run.resume, cfg.schedule.kind) == (None, "multistep")


@pytest.mark.parametrize(
    "given", [[], ["cluster=processes"], ["cluster=replay"], ["cluster=replay", "cluster.trace=no"]]
)
def test_other_command_lines_are_left_alone(given: list[str]):
    assert recorded_overrides(given) == []


def past(folder: Path, cfg: Any, status: str, checkpoints: bool = True) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    if checkpoints:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "step-000000000001.pt").touch()
    return folder


def job(seed: int) -> Any:
    cfg = OmegaConf.structured(Config)
    cfg.seed = seed
    return cfg


def test_sweep_resumes_finished_and_stopped_jobs(tmp_path: Path):
    done = past(tmp_path / "a" / "0", job(0), "completed")
    past(tmp_path / "a" / "1", job(1), "failed")
    stopped = past(tmp_path / "a" / "2", job(2), "interrupted")
    killed = past(tmp_path / "b" / "0", job(3), "running")
    past(tmp_path / "b" / "1", job(4), "interrupted", checkpoints=False)
    (tmp_path / "c" / ".hydra").mkdir(parents=True)
    (tmp_path / "c" / ".hydra" / "config.yaml").write_text("a: [")
    earlier = EarlierRuns(tmp_path)
    assert [earlier.of(job(seed)) for seed in range(6)] == [
        (done, True),
        None,
        (stopped, False),
        (killed, False),
        None,
        None,
    ]
    with folders.run_lock(stopped):
        pass  # by this process; another one's lock is what counts
    assert EarlierRuns(tmp_path).of(job(2)) == (stopped, False)


def test_a_pruned_run_can_go_on(tmp_path: Path):
    pruned = past(tmp_path / "a" / "0", job(0), "pruned")
    assert EarlierRuns(tmp_path).of(job(0)) == (pruned, False)
    whole = past(tmp_path / "b" / "0", job(0), "completed")
    assert EarlierRuns(tmp_path).of(job(0)) == (whole, True)


def test_the_newest_of_equal_runs_counts(tmp_path: Path):
    folders_by_age = [past(tmp_path / name / "0", job(0), "interrupted") for name in ("b", "c", "a")]
    for age, folder in enumerate(folders_by_age):
        os.utime(folder / ".hydra" / "config.yaml", (1000 - age, 1000 - age))
    assert EarlierRuns(tmp_path).of(job(0)) == (folders_by_age[0], False)


def test_older_run_lacks_a_new_key(tmp_path: Path):
    folder = past(tmp_path / "a" / "0", job(0), "completed")
    path = folder / ".hydra" / "config.yaml"
    old = OmegaConf.load(path)
    del old.run["capture"]
    OmegaConf.save(old, path)
    other = job(0)
    other.run.capture = False
    assert EarlierRuns(tmp_path).of(job(0)) == (folder, True)
    assert EarlierRuns(tmp_path).of(other) is None


def test_no_validation_split_is_as_no_such_key(tmp_path: Path):
    old, new, other = job(0), job(0), job(0)
    old.dataset, new.dataset, other.dataset = (
        {"_target_": "data.digits.Digits", **own} for own in ({}, {"validation": None}, {"validation": 0.1})
    )
    folder = past(tmp_path / "a" / "0", old, "completed")
    assert EarlierRuns(tmp_path).of(new) == (folder, True)
    assert EarlierRuns(tmp_path).of(other) is None


def test_locked_run_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    past(tmp_path / "a" / "0", job(0), "running")
    monkeypatch.setattr(folders, "is_locked", lambda folder: True)
    assert EarlierRuns(tmp_path).of(job(0)) is None


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "it says no algorithm"),
        (b"algorithm: 3\n", "it says no algorithm"),
        (b"algorithm: {_target_: a.b}\n", "it says no model"),
        (b"- a\n", "Cannot merge DictConfig with ListConfig"),
        (bytes(range(256)), "is not UTF-8 text"),
        (b"run: {epochs: many}\n", "Value 'many' of type 'str' could not be converted to Float"),
        (b"a: !!python/object/apply:os.system [x]\n", "could not determine a constructor"),
        (b"a: &a [1]\nb: [" + b"*a, " * 21 + b"]\n", "has more than 20 YAML aliases"),
    ],
    ids=["empty", "number", "half", "list", "binary", "type", "Python", "aliases"],
)
def test_stored_configuration_that_is_none_is_named(tmp_path: Path, content: bytes, wrong: str):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rf"^run.resume={tmp_path}: its .hydra/config.yaml cannot be used: .*{wrong}"):
        stored_config(tmp_path, OmegaConf.structured(Config), [])


def test_earlier_run_is_found_whatever_reads_its_data(tmp_path: Path):
    with composer() as compose:
        recorded = compose.one(["dataset=cifar10", "dataset.root=/a"])
        kept = OmegaConf.create({key: value for key, value in recorded.items() if key != "hydra"})
        del kept.dataset["cache"], kept.dataset["url"]  # written before these keys existed
        folder = tmp_path / "old"
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(kept, folder / ".hydra" / "config.yaml")
        (folder / "summary.json").write_text(json.dumps({"status": "completed"}))
        for typed, found in (["dataset.cache=/c", "dataset.workers=3"], True), (["dataset.root=/b"], False):
            job = compose.one(["dataset=cifar10", "dataset.root=/a", *typed])
            job = OmegaConf.create({key: value for key, value in job.items() if key != "hydra"})
            assert EarlierRuns(tmp_path).of(job) == ((folder, True) if found else None)


def test_earlier_run_with_other_delays_is_another_run(tmp_path: Path):
    place = tmp_path / "d.csv"
    place.write_text("1,2\n")
    delayed = job(0)
    delayed.cluster.compute.delays = str(place)
    folder = past(tmp_path / "a" / "0", delayed, "completed")
    (folder / "delays.csv").write_text("1,2\n")
    assert EarlierRuns(tmp_path).of(delayed) == (folder, True)
    place.write_text("1,3\n4,4\n")
    assert EarlierRuns(tmp_path).of(delayed) is None


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("summary.json", b"[]", "summary.json holds no JSON object"),
        ("summary.json", bytes(range(256)), "can't decode byte 0x80"),
        ("summary.json", b"[" * 99_999, "nested too deep"),
        ("metrics.jsonl", bytes(range(256)) * 9, "metrics.jsonl: 17 lines cannot be read"),
        ("metrics.jsonl", b'{"epoch": 1}\n<html>\n', "metrics.jsonl: 1 line cannot be read"),
        ("metrics.jsonl", None, "metrics.jsonl is not a plain file"),
        ("timeline.jsonl", None, "timeline.jsonl is not a plain file"),
        ("trace.jsonl", None, "trace.jsonl is not a plain file"),
    ],
    ids=["list", "binary summary", "deep", "binary metrics", "page", "pipe", "pipe of spans", "pipe of messages"],
)
def test_run_whose_files_are_damaged_is_not_continued(tmp_path: Path, name: str, content: bytes | None, wrong: str):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").touch()
    assert run_folder(str(tmp_path)) == tmp_path
    os.mkfifo(tmp_path / name) if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"^run.resume={tmp_path}: cannot be continued \(.*{wrong}.*\); allowed: a run f"
    ):
        run_folder(str(tmp_path))
