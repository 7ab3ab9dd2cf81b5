from pathlib import Path

import pytest
import torch

from runner.train.build import build_run
from runner.train.dispatch import dispatch
from runner.train.evaluate_run import evaluated
from tests.trial import compose, run_in, train

SHORT = ("dataset.limit_train=64", "dataset.limit_test=32", "run.epochs=1", "run.batch_size=16")
DUAL = (
    "algorithm=dis_dfsdca",
    "model=ridge",
    "dataset=synthetic",
    "dataset.classes=2",
    "dataset.train=100",
    "run.batch_size=10",
    "schedule.lr=0.0001",
)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finished_run_scores_as_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ("algorithm=dc_asgd_a", "model=resnet8", "dataset.validation=0.25", "cluster.workers=2", *SHORT)
    assert run_in(tmp_path / "a", *options)[0] == 0
    before = content(tmp_path / "a")
    capsys.readouterr()
    again = compose(*options, f"model.weights={tmp_path / 'a'}", "run.evaluate_only=true")
    assert dispatch(again, None) == 0
    said = capsys.readouterr().out
    assert content(tmp_path / "a") == before
    assert "recorded: training loss and error are means" in said
    rows = {cells[1].strip(): cells[2:4] for line in said.splitlines() if len(cells := line.split("│")) == 5}
    assert {*rows} == {f"{split}_{what}" for split in ("train", "test", "validation") for what in ("loss", "error")}
    for name, (now, recorded) in rows.items():
        assert name.startswith("train") or now.strip() == recorded.strip()


def test_states_of_the_method_tell_the_duality_gap(tmp_path: Path):
    trial = train(*DUAL, folder=tmp_path)
    components = build_run(compose(*DUAL))
    components.oracle.replica.weights.copy_(trial.executor.weights())
    row, last = evaluated(components, trial.executor.method_states()), trial.notes.rows[-1]
    for name in ("primal", "dual", "duality_gap"):
        assert row[name] == last[name]
    alone = evaluated(components, None)
    assert alone["primal"] == last["primal"]
    assert "duality_gap" not in alone


def test_training_score_is_of_the_whole_set_at_rest(tmp_path: Path):
    trial = train("algorithm=sgd", "model=linear", *SHORT, folder=tmp_path)
    components = build_run(compose("algorithm=sgd", "model=linear", *SHORT))
    components.oracle.replica.weights.copy_(trial.executor.weights())
    inputs, targets = components.dataset.train.batch(torch.arange(64))
    loss, _ = components.oracle.loss(inputs, targets)
    assert evaluated(components, None)["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
