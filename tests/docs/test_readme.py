"""The README's example of an own algorithm, as it stands there."""

import importlib
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from tests import trial

README = Path(__file__).resolve().parents[2] / "README.md"
RUN = (
    *("model=mlp", "dataset.limit_train=600", "dataset.limit_test=200", "run.batch_size=8", "run.epochs=4"),
    *("cluster.workers=16", "cluster.compute.distribution=gamma", "schedule.lr=0.1"),
    *("cluster.compute.cv_task=0.1", "cluster.compute.cv_machine=0"),
)


def test_drop_stale_example_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sixteen workers alike are fifteen pushes apart: were pushes counted, none would be fresh ever again."""
    text = README.read_text(encoding="utf-8")
    source, options = re.findall(r"```(?:python|yaml)\n# \S+drop_stale\.\w+\n(.*?)```", text, re.DOTALL)
    (tmp_path / "readme_drop_stale.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("readme_drop_stale")
    cfg = trial.compose("algorithm=asgd", *RUN)
    with open_dict(cfg):
        cfg.algorithm = OmegaConf.create(options)
    assert cfg.algorithm._target_ == f"algorithms.drop_stale.{module.DropStale.__name__}"
    cfg.algorithm._target_ = "readme_drop_stale.DropStale"
    monkeypatch.setattr(trial, "compose", lambda *overrides: cfg)
    run = trial.train(folder=tmp_path)
    errors = [row["test_error"] for row in run.notes.rows]
    assert errors[-1] < 30
    # Some were ignored, and they are no updates.
    assert 0 < run.notes.rows[-1]["updates"] < 4 * 600 / 8
    assert run.notes.rows[-1]["staleness_max"] > 8
