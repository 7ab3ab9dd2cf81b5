import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.cli.main import main
from runner.loop.stop import Stop
from runner.simulated.collective import SimulatedCollective
from runner.train import dispatch as dispatching
from runner.train.dispatch import dispatch
from tests.trial import compose

TINY = ("algorithm=sgd", "model=linear", "dataset.limit_train=16", "dataset.limit_test=8", "run.batch_size=8")


def test_four_calls_from_main_to_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hydra's own calls in between are not ours."""
    ours = str(Path(runner.__file__).parent)
    found: list[str] = []

    def loop(self: SimulatedCollective) -> None:
        frames = [frame.function for frame in inspect.stack()[1:] if frame.filename.startswith(ours)]
        found.extend(reversed(frames))
        raise Stop("completed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SimulatedCollective, "run", loop)
    assert main([*TINY, "logger=none"]) == 0
    assert found == ["main", "_hydra", "__call__", "dispatch", "train"]


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        (["run.estimate=true", "cluster=processes"], "preview"),
        (["run.advise=true"], "preview"),
        (["run.plot_schedule=lr.svg"], "preview"),
        (["cluster=processes"], "run_on_processes"),
        (["cluster.kind=replay", "cluster.trace=here"], "run_replay"),
        ([], "train"),
    ],
)
def test_configuration_chooses_what_is_done(
    overrides: list[str], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def noted(name: str) -> Any:
        return lambda *given, **more: calls.append(name) or 7

    monkeypatch.setattr(dispatching, "preview", noted("preview"))
    monkeypatch.setattr(dispatching, "train", noted("train"))
    monkeypatch.setattr(dispatching.ranks, "run_on_processes", noted("run_on_processes"))
    monkeypatch.setattr(dispatching.replay, "run_replay", noted("run_replay"))
    assert dispatch(compose(*TINY, *overrides), tmp_path) == 7
    assert calls == [chosen]


@pytest.mark.parametrize(("status", "shown"), [("completed", True), ("diverged", True), ("interrupted", False)])
def test_finished_run_is_shown_again(
    status: str, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(dispatching, "train", lambda *given, **more: 3)
    summary = {"status": status, "algorithm": "sgd", "model": "linear", "dataset": "digits", "final_test_error": 4.5}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1.0, "test_error": 4.5}\n')
    cfg = compose(*TINY)
    cfg.run.resume = str(tmp_path)
    assert dispatch(cfg, tmp_path) == (0 if shown else 3)
    assert (status in capsys.readouterr().out) is shown
