import json
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.run_folder import loggers
from runner.run_folder.loggers import Loggers, asked

OFF: dict[str, Any] = {"kind": "none", "mode": "offline", "project": "p", "group": None}


def config(**logger: object) -> dict[str, Any]:
    return {"seed": 1, "logger": {**OFF, "csv": False, "tensorboard": False, "mlflow": False, **logger}}


class Kept:
    """A logger that keeps what it is told."""

    def __init__(self, *arguments: object, run_id: str | None = None, **options: object) -> None:
        self.id = run_id or "new"
        self.told: list[Any] = []

    def take_over(self, rows: list[Any]) -> None:
        self.told += rows

    def log(self, row: Any, step: int = 0) -> None:
        self.told.append(row)

    def finish(self, summary: Any, failed: bool = False) -> None:
        self.told.append(summary)


def test_several_loggers_get_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Kept] = []

    def make(*arguments: object, **options: Any) -> Kept:
        made.append(Kept(*arguments, run_id=options.get("run_id")))
        return made[-1]

    for name in ("TensorBoardLog", "WandbRun", "MlflowRun"):
        monkeypatch.setattr(loggers, name, make)
    own = Loggers()
    cfg = config(csv=True, tensorboard=True, mlflow=True, kind="wandb", tracking_uri=None)
    own.begin(tmp_path, cfg, {"wandb_id": "w", "mlflow_id": "m", "rows": 1})
    own.take_over([{"epoch": 1.0}])
    own.log({"epoch": 2.0}, number=2)
    own.finish({"status": "completed"}, failed=False)
    assert [logger.told for logger in made] == [[{"epoch": 1.0}, {"epoch": 2.0}, {"status": "completed"}]] * 3
    assert (tmp_path / "metrics.csv").read_text() == "epoch\n1.0\n2.0\n"
    assert own.ids() == {"wandb_id": "w", "mlflow_id": "m"}
    assert json.loads(json.dumps(own.ids())) == own.ids()


def test_full_disk_costs_the_table_only(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    own = Loggers()
    own.begin(tmp_path, config(csv=True), {})
    (tmp_path / "metrics.csv").mkdir()
    own.take_over([])
    own.log({"epoch": 1.0}, number=1)
    own.finish({}, failed=False)
    assert caplog.text.count("csv failed (IsADirectoryError") == 1


def test_refusal_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match="logger=tensorboard"):
        Loggers().begin(tmp_path, config(csv=True, tensorboard=True), {})
    assert not list(tmp_path.iterdir())


def test_asked_tells_whether_any_logger_is():
    assert not asked({})
    # A run from before there were others says no more than this.
    assert not asked({"logger": OFF})
    assert asked({"logger": {**OFF, "kind": "wandb"}})
    assert not asked({"logger": {**OFF, "kind": "wandb", "mode": "disabled"}})
    assert asked(config(csv=True))
