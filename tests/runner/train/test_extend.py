"""A run that is made longer is the longer run in one piece, to the bit, or is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.cli import main
from runner.config.errors import InputError
from runner.run_folder.contents import checkpoint_files, read_metrics, read_summary
from runner.train.extend import extend
from tests.trial import SMALL, compose

RUN = (*SMALL, "model=mlp", "dataset.limit_train=60", "dataset.limit_test=20", "run.batch_size=4")
DELAYED = ("cluster.network.latency=0.3", "cluster.stragglers.probability=0.3")


def run(folder: Path, *overrides: str) -> int:
    return main.main([*RUN, f"hydra.run.dir={folder}", *overrides])


def longer(folder: Path, epochs: float, *overrides: str) -> int:
    return main.main([f"run.resume={folder}", f"run.epochs={epochs}", *overrides])


def results(folder: Path) -> tuple[Any, ...]:
    """What is the same in every run of one configuration."""
    summary = read_summary(folder)
    kept = {key: summary[key] for key in ("status", "weights_sha256", "epochs", "updates", "best_test_error")}
    return kept, read_metrics(folder), (folder / "timeline.jsonl").read_text()


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("algorithm=asgd", "cluster.workers=3", *DELAYED), id="asgd"),
        pytest.param(
            ("algorithm=ssgd", "cluster.workers=2", "algorithm.momentum=0.9"), id="ssgd", marks=pytest.mark.slow
        ),
        pytest.param(
            ("algorithm=local_sgd", "cluster.workers=2", "algorithm.tau=3"), id="local_sgd", marks=pytest.mark.slow
        ),
        pytest.param(("algorithm=hogwild", "cluster.workers=3", *DELAYED), id="hogwild", marks=pytest.mark.slow),
        pytest.param(
            ("algorithm=asysvrg", "algorithm.inner=7", "run.keep_checkpoints=3"), id="asysvrg", marks=pytest.mark.slow
        ),
        pytest.param(("algorithm=fr", "cluster.workers=2"), id="fr", marks=pytest.mark.slow),
        # The last of its local steps before the end are fewer, as they would not be in a longer run.
        pytest.param(
            ("algorithm=easgd", "algorithm.tau=3", "cluster.workers=2", "run.keep_checkpoints=3", *DELAYED), id="easgd"
        ),
    ],
)
def test_longer_run_has_the_bits_of_one_piece(overrides: tuple[str, ...], tmp_path: Path):
    schedule = ("schedule=multistep", "schedule.milestones=[1,3]", "schedule.lr=0.02")
    assert run(tmp_path / "whole", *overrides, *schedule, "run.epochs=4") == 0
    assert run(tmp_path / "parts", *overrides, *schedule, "run.epochs=2") == 0
    assert longer(tmp_path / "parts", 4) == 0
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    hydra = tmp_path / "parts" / ".hydra"
    assert OmegaConf.load(hydra / "config.yaml").run.epochs == 4
    assert "run.epochs=4" in OmegaConf.load(hydra / "overrides.yaml")
    assert "run.epochs=2" not in OmegaConf.load(hydra / "overrides.yaml")


@pytest.mark.slow
def test_longer_run_on_processes_has_the_same_bits(tmp_path: Path):
    overrides = ("algorithm=ssgd", "cluster=processes", "cluster.workers=2", "algorithm.momentum=0.9")
    assert run(tmp_path / "whole", *overrides, "run.epochs=4") == 0
    assert run(tmp_path / "parts", *overrides, "run.epochs=2") == 0
    assert longer(tmp_path / "parts", 4) == 0
    # Seconds are measured here, so rows and timelines differ.
    assert results(tmp_path / "parts")[0] == results(tmp_path / "whole")[0]


@pytest.mark.slow
def test_last_evaluation_off_the_grid_is_not_kept(tmp_path: Path):
    overrides = ("algorithm=ssgd", "cluster.workers=2")
    assert run(tmp_path / "whole", *overrides, "run.epochs=3") == 0
    assert run(tmp_path / "parts", *overrides, "run.epochs=1.5") == 0
    assert longer(tmp_path / "parts", 3) == 0
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_recorded_run_replays_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "parts"
    assert run(folder, "algorithm=asgd", "cluster.workers=3", "cluster.record=true", *DELAYED, "run.epochs=2") == 0
    assert longer(folder, 4) == 0
    assert json.loads((folder / "trace.jsonl").read_text().splitlines()[0])["epochs"] == 4
    replay = ("cluster=replay", f"cluster.trace={folder}", f"hydra.run.dir={tmp_path / 'replay'}")
    assert main.main([*replay, "logger=none"]) == 0
    assert "weights: bit for bit those of the recorded run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "epochs", "why"),
    [
        (("schedule=polynomial",), 3, "spans the whole run"),
        ((), 1, "cannot be cut; allowed: 2 or more"),
        pytest.param(("schedule.lr=1e30",), 3, "has diverged", marks=pytest.mark.slow),
        pytest.param(("run.target_loss=1e9",), 3, "has ended at its run.target_loss", marks=pytest.mark.slow),
        pytest.param(
            ("algorithm=asgd", "run.keep_checkpoints=1"), 3, "workers were out of batches", marks=pytest.mark.slow
        ),
        (("algorithm=asgd", "run.eval_every=2"), 3, "workers were out of batches"),
    ],
)
def test_refusal_says_why_and_changes_nothing(
    overrides: tuple[str, ...], epochs: float, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "a"
    assert run(folder, "algorithm=ssgd", "cluster.workers=2", *overrides, "run.epochs=2") == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    capsys.readouterr()
    assert longer(folder, epochs) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dcrun: run.epochs={epochs}: ")
    assert why in line
    # That two checkpoints are kept helps only if one was.
    assert ("keep_checkpoints=2" in line) == ("run.keep_checkpoints=1" in overrides)
    assert {path: path.read_bytes() for path in before} == before


def test_finished_run_says_that_nothing_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "a"
    assert run(folder, "algorithm=sgd", "run.epochs=1") == 0
    before = [path.stat().st_mtime_ns for _, path in checkpoint_files(folder)]
    capsys.readouterr()
    assert longer(folder, 1) == 0
    out = capsys.readouterr().out
    assert "nothing was done: this run had come to its end (completed); run.epochs=<more than 1> makes it longer" in out
    assert [path.stat().st_mtime_ns for _, path in checkpoint_files(folder)] == before


@pytest.mark.slow
def test_stopped_run_may_become_longer(tmp_path: Path):
    """Not only a finished one."""
    overrides = ("algorithm=asgd", "cluster.workers=3", *DELAYED)
    assert run(tmp_path / "whole", *overrides, "run.epochs=3") == 0
    folder = tmp_path / "parts"
    assert run(folder, *overrides, "run.epochs=2") == 0
    summary = json.loads((folder / "summary.json").read_text())
    # As a kill leaves it after the first evaluation.
    (folder / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    checkpoint_files(folder)[0][1].unlink()
    assert longer(folder, 3) == 0
    assert results(folder) == results(tmp_path / "whole")


def test_run_without_checkpoints_cannot_be_made_longer(tmp_path: Path):
    (tmp_path / "summary.json").write_text('{"status": "completed", "epochs": 2.0}')
    cfg = compose("algorithm=sgd", "model=linear", "run.epochs=3")
    with pytest.raises(InputError, match=r"^run\.epochs=3.*the run has no checkpoints \(dcreport --clean removes"):
        extend(cfg, tmp_path)


def test_epochs_beside_an_evaluation_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path / "a", "algorithm=sgd", "run.epochs=1") == 0
    assert longer(tmp_path / "a", 9, "run.evaluate_only=true") == 2
    assert "run.epochs=9: does nothing beside run.evaluate_only=true" in capsys.readouterr().err
