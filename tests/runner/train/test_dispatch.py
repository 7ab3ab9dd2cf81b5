import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.cli.main import main
from runner.config import delays
from runner.loop.stop import Stop
from runner.simulated.collective import SimulatedCollective
from runner.train import dispatch as dispatching
from runner.train.dispatch import dispatch
from tests.trial import compose, run_in

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
    assert found == ["main", "begin", "__call__", "dispatch", "train"]


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


DELAYED = ("model=mlp", "dataset.limit_train=16", "dataset.limit_test=8", "run.batch_size=2", "cluster.workers=2")


@pytest.mark.parametrize("algorithm", ["asgd", "ssgd", "hogwild", "bp"])
def test_file_of_delays_drives_every_topology(algorithm: str, tmp_path: Path):
    """A worker's gradients take the seconds of its column, row by row, whatever the order of events."""
    columns = ((1.0, 5.0, 2.0, 3.0), (4.0, 1.5, 2.5))
    place = tmp_path / "d.csv"
    place.write_text(delays.text(columns))
    overrides = (*DELAYED, f"algorithm={algorithm}", "run.epochs=2", f"cluster.compute.delays={place}")
    code, summary = run_in(tmp_path / "run", *overrides)
    assert code == 0
    assert summary["delays_sha256"] == delays.read(str(place)).sha256
    lines = [json.loads(line) for line in (tmp_path / "run" / "timeline.jsonl").read_text().splitlines()]
    for worker, column in enumerate(columns):
        spans = [
            line["end"] - line["start"] for line in lines if line["worker"] == worker and line["what"] == "compute"
        ]
        if algorithm == "bp":
            # A module does its share of the network, a third of it forward; forward and backward are two spans.
            own = sum(spans[:2]) / column[0]
            assert 0 < own < 1
            assert spans[0] == pytest.approx(own * column[0] / 3)
            spans = [(forward + backward) / own for forward, backward in zip(spans[::2], spans[1::2], strict=True)]
        assert len(spans) >= 5
        assert spans == pytest.approx([column[task % len(column)] for task in range(len(spans))])


def test_resumed_run_keeps_its_delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    """Longer by `run.epochs`, with another file in its place; the typed path is relative to the current folder."""
    overrides = (*DELAYED, "algorithm=asgd", "logger=none", "run.threads=1", "cluster.compute.delays=d.csv")
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "d.csv"
    place.write_text("1,10\n5,2\n2,\n")
    assert main([*overrides, "hydra.run.dir=whole", "run.epochs=3"]) == 0
    assert main([*overrides, "hydra.run.dir=parts", "run.epochs=2"]) == 0
    place.write_text("1,1\n")
    monkeypatch.chdir(tmp_path / "whole")
    assert main(["run.resume=../parts", "run.epochs=3"]) == 0
    for name in ("metrics.jsonl", "timeline.jsonl", "delays.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    capfd.readouterr()
    assert main(["run.resume=../parts", "cluster.compute.delays=other.csv"]) == 2
    assert "cluster.compute.delays=other.csv: cannot change when a run is continued" in capfd.readouterr().err
    (tmp_path / "parts" / "delays.csv").write_text("1,1\n")
    assert main(["run.resume=../parts", "run.epochs=4"]) == 2
    assert "delays.csv is not what the run began with" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["cluster.compute.delays=none.csv"], "=none.csv: cannot be read (No such file"),
        pytest.param(
            ["cluster.compute.delays=d.csv", "cluster.workers=3"],
            "=d.csv: has 2 columns; allowed: one per worker",
            marks=pytest.mark.slow,
        ),
        # Only the algorithm knows this number.
        (["cluster.compute.delays=d.csv"], "=d.csv: has 2 columns; allowed: one per worker (cluster.workers=4)"),
        pytest.param(
            ["cluster.compute.delays=d.csv", "run.estimate=true"],
            "=d.csv: has 2 columns; allowed: one per worker",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_wrong_delays_leave_no_folder(
    given: list[str], wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("1,2\n")
    assert main(["algorithm=asgd", "model=linear", "logger=none", *given]) == 2
    assert f"cluster.compute.delays{wrong}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]
