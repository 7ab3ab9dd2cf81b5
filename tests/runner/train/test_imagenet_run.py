"""A run on images that are decoded as they are used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runner.config.exit_codes import run_guarded
from tests.trial import Trial, run_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of 4 training and 2 validation photographs."""
    root = tmp_path_factory.mktemp("imagenet")
    for split, count in (("train", 4), ("val", 2)):
        for group in range(6):
            (root / split / f"n0{group}").mkdir(parents=True)
            for i in range(count):
                coarse = np.random.default_rng(10 * group + i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((40, 36))
                picture.save(root / split / f"n0{group}" / f"{i}.JPEG", format="JPEG")
    return root


def run(folder: Path, tmp_path: Path, workers: int, *overrides: str) -> Trial:
    data = ("dataset=imagenet", f"dataset.root={folder}", "dataset.size=16", f"dataset.workers={workers}")
    options = ("model=resnet8", "run.batch_size=4", "run.epochs=1.5", "run.eval_batch_size=5", "schedule.lr=0.1")
    return Trial(*data, *options, *overrides, folder=tmp_path).run()


@pytest.mark.parametrize(
    "options", [("algorithm=dc_asgd_a", "cluster.workers=3"), ("algorithm=ssgd", "cluster.workers=2")]
)
def test_decoding_ahead_changes_nothing(folder: Path, tmp_path: Path, options: tuple[str, ...]):
    alone, ahead = (run(folder, tmp_path, workers, *options) for workers in (0, 2))
    assert alone.sha256 == ahead.sha256
    rows = alone.notes.rows
    assert rows == ahead.notes.rows
    for row in rows:
        assert 0 <= row["test_error_top5"] <= row["test_error"] <= 100
    assert not ahead.components.dataset.train._ahead  # all that was decoded ahead was used
    assert not ahead.components.dataset.test._ahead


def test_validation_split_is_streamed(folder: Path, tmp_path: Path):
    done = run(folder, tmp_path, 2, "algorithm=sgd", "dataset.validation=12")
    assert (len(done.components.dataset.train), len(done.components.dataset.validation)) == (12, 12)
    for row in done.notes.rows:
        assert 0 <= row["validation_error_top5"] <= row["validation_error"] <= 100
        assert row["validation_loss"] > 0
    assert not done.components.dataset.validation._ahead


def test_run_goes_on_after_a_damaged_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(folder, tmp_path / "images")
    image = tmp_path / "images" / "train" / "n03" / "2.JPEG"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    data = ("dataset=imagenet", f"dataset.root={tmp_path / 'images'}", "dataset.size=16", "dataset.workers=0")
    options = ("algorithm=sgd", "model=resnet8", "run.batch_size=4", "run.epochs=1", "run.eval_every=0.1")
    assert run_guarded(lambda: run_in(tmp_path / "run", *data, *options)[0], tmp_path / "run") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dcrun: dataset.root={tmp_path / 'images'}: train/n03/2.JPEG is not an intact JPEG")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    image.write_bytes(whole)
    resumed = run_in(tmp_path / "run", *data, *options, f"run.resume={tmp_path / 'run'}")[1]
    assert resumed["status"] == "completed"
    assert resumed["weights_sha256"] == run_in(tmp_path / "other", *data, *options)[1]["weights_sha256"]


def test_other_datasets_report_no_top5(tmp_path: Path):
    trial = Trial("algorithm=sgd", "dataset.limit_train=64", "run.epochs=1", "model=linear", folder=tmp_path).run()
    assert "test_error_top5" not in trial.notes.rows[0]
