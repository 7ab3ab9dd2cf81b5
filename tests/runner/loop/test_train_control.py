import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.gradients.evaluate import Score
from runner.loop.schedule import Schedule
from runner.loop.stop import PeerLost, Stop
from runner.loop.train_control import CHECK_EVERY, TrainControl
from runner.run_folder.timeline import Timeline
from tests.trial import Notes


class Executor:
    """What `TrainControl` needs of whoever drives it."""

    def __init__(self) -> None:
        self.timeline = Timeline(1)
        self.bytes_sent = 0

    def columns(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"mine": 7}


class Fixture:
    """A training control of 10 samples with a logger, saved checkpoints and an evaluator that counts."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.notes, self.saved, self.evaluated, self.stop = Notes(), [], 0, False
        self.score = Score(0.5, 12.5)
        self.executor: Any = Executor()
        self.totals = torch.zeros(3, dtype=torch.float64)
        evaluator: Any = self.evaluate
        given: dict[str, Any] = {"samples": 10, "epochs": 3, "eval_every": 1.0, "checkpoint_every": 1.0} | options
        self.control = TrainControl(
            **given,
            schedule=Schedule(lr=0.4, workers=1, milestones=[1], gamma=0.5),
            evaluator=evaluator,
            logger=self.notes,
            folder=folder,
            save=lambda updates, state: self.saved.append((updates, state)),
            stopping=lambda: self.stop,
        )

    def evaluate(self, weights: torch.Tensor, statistics: torch.Tensor) -> Score:
        self.evaluated += 1
        return self.score

    def update(self, samples: float = 5, loss: float = 2.0, errors: float = 1.0, finished: bool = False) -> None:
        self.totals += torch.tensor([loss * samples, errors, samples], dtype=torch.float64)
        self.executor.timeline.staleness(0, self.control.updates)
        self.control.advance(samples, self.control.seconds + 1, self.totals, staleness=self.control.updates)
        if self.control.due(finished):
            nothing = torch.empty(0)
            self.control.evaluate(nothing, nothing, self.totals, self.executor, finished)


def test_rows_cover_the_time_between_evaluations(tmp_path: Path):
    run = Fixture(tmp_path)
    for loss in (2.0, 4.0, 6.0):
        run.update(loss=loss)
    assert len(run.notes.rows) == 1
    run.update(loss=8.0)
    first, second = run.notes.rows
    expected = {
        "epoch": 1.0,
        "samples": 10,
        "updates": 2,
        "seconds": 2.0,
        "train_loss": 3.0,
        "train_error": 20.0,
        "test_loss": 0.5,
        "test_error": 12.5,
        "lr": 0.2,
        "staleness_mean": 0.5,
        "staleness_max": 1,
    }
    assert {key: first[key] for key in expected} == expected
    assert (second["train_loss"], second["staleness_mean"], second["updates"], second["epoch"]) == (7.0, 2.5, 4, 2.0)
    assert not run.totals.any()


def test_rate_follows_effective_passes(tmp_path: Path):
    run = Fixture(tmp_path)
    rates = []
    for _ in range(3):
        rates.append(run.control.rate())
        run.update()
    assert rates == [(0.4, 1.0), (0.4, 1.0), (0.2, 0.5)]


@pytest.mark.parametrize(
    ("every", "epochs"), [(1.0, [1.0, 2.0, 3.0]), (0.5, [0.5, 1, 1.5, 2, 2.5, 3]), (2.0, [2.0, 3.0])]
)
def test_evaluations_follow_eval_every(every: float, epochs: list[float], tmp_path: Path):
    run = Fixture(tmp_path, eval_every=every)
    for update in range(6):
        run.update(finished=update == 5)
    assert [row["epoch"] for row in run.notes.rows] == epochs


def test_evaluations_do_not_drift(tmp_path: Path):
    run = Fixture(tmp_path, eval_every=0.5)
    for _ in range(10):
        run.update(samples=3)
    # Each comes with the first update at or after a multiple of a half, however late the one before came.
    assert [round(row["epoch"], 9) for row in run.notes.rows] == [0.6, 1.2, 1.5, 2.1, 2.7, 3.0]


def test_long_steps_are_evaluated_once(tmp_path: Path):
    run = Fixture(tmp_path, eval_every=0.1)
    run.update(samples=10)
    run.update(samples=10)
    assert [row["epoch"] for row in run.notes.rows] == [1.0, 2.0]


def test_checkpoints_follow_checkpoint_every(tmp_path: Path):
    run = Fixture(tmp_path, checkpoint_every=2.0)
    for update in range(6):
        run.update(finished=update == 5)
    assert [updates for updates, _ in run.saved] == [4, 6]
    assert run.saved[0][1]["executor"] == {"mine": 7}


def test_a_signal_saves_at_once_and_stops(tmp_path: Path):
    run = Fixture(tmp_path)
    run.update()
    run.stop = True
    with pytest.raises(Stop) as stopped:
        run.update(samples=1)
    assert (stopped.value.status, stopped.value.code) == ("interrupted", 0)
    assert [updates for updates, _ in run.saved] == [2]
    assert run.evaluated == 0, "what was trained so far is not in a row yet"


def test_signal_at_evaluation_saves(tmp_path: Path):
    run = Fixture(tmp_path, checkpoint_every=100.0)
    run.update()
    run.stop = True
    with pytest.raises(Stop, match="interrupted"):
        run.update()
    assert len(run.notes.rows) == 1
    assert [updates for updates, _ in run.saved] == [2]


def test_pruned_run_is_saved_before_it_ends(tmp_path: Path):
    run = Fixture(tmp_path, checkpoint_every=100.0)
    told: list[dict[str, Any]] = []
    run.control.prunes = lambda row: told.append(row) or len(told) == 2
    for _ in range(3):
        run.update()
    # A signal that comes at the same time changes nothing: the run is over in any case.
    run.stop = True
    with pytest.raises(Stop, match="pruned"):
        run.update()
    assert told == run.notes.rows
    assert [updates for updates, _ in run.saved] == [4]


def test_the_last_evaluation_prunes_nothing(tmp_path: Path):
    run = Fixture(tmp_path)
    run.control.prunes = lambda row: True
    run.update()
    run.update(finished=True)
    assert len(run.notes.rows) == 1


def test_late_signal_stops_at_next_update(tmp_path: Path):
    run = Fixture(tmp_path, checkpoint_every=100.0)
    answers = iter([False, False, True, True])  # one for `due` of each update, one for `evaluate` of each
    run.control.stopping = lambda: next(answers)
    run.control.due = lambda finished=False: run.control.stopping() or True
    run.update()
    assert not run.saved
    with pytest.raises(Stop, match="interrupted"):
        run.update()
    assert [updates for updates, _ in run.saved] == [2]


def test_stop_asked_elsewhere_is_saved(tmp_path: Path):
    run = Fixture(tmp_path, checkpoint_every=100.0)
    run.control.advance(5, 1.0, None)
    nothing = torch.empty(0)
    with pytest.raises(Stop, match="interrupted"):
        run.control.evaluate(nothing, nothing, run.totals, run.executor, stop=True)
    assert [updates for updates, _ in run.saved] == [1]


def test_tiny_intervals_are_passed_at_once(tmp_path: Path):
    run = Fixture(tmp_path, eval_every=1e-12, checkpoint_every=1e-12)
    run.update()
    run.update()
    assert [row["epoch"] for row in run.notes.rows] == [0.5, 1.0]
    assert len(run.saved) == 2


def test_signal_in_last_update_is_ignored(tmp_path: Path):
    run = Fixture(tmp_path, epochs=0.5)
    run.stop = True
    run.update(finished=True)
    assert len(run.notes.rows) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinite_loss_ends_the_run_soon(value: float, tmp_path: Path):
    run = Fixture(tmp_path, epochs=1e9, eval_every=1e9)
    for _ in range(CHECK_EVERY - 1):
        run.update(loss=value)
    with pytest.raises(Stop, match="diverged"):
        run.update(loss=value)


def test_diverged_evaluations_write_their_row(tmp_path: Path):
    run = Fixture(tmp_path)
    run.update(loss=math.nan)
    with pytest.raises(Stop, match="diverged"):
        run.update()
    assert len(run.notes.rows) == 1
    assert not run.saved, "nothing is gained by going on from there"


def test_infinite_test_loss_is_divergence(tmp_path: Path):
    run = Fixture(tmp_path)
    run.score = Score(math.inf, 90.0)
    run.update()
    with pytest.raises(Stop, match="diverged"):
        run.update()


def test_exploded_loss_is_divergence(tmp_path: Path):
    run = Fixture(tmp_path, divergence_factor=100.0, epochs=9)
    run.update(loss=2.0)
    # At the factor it has not diverged, and may come back.
    run.update(loss=398.0)
    run.update(loss=1.0)
    run.update(loss=399.0)
    run.update(loss=200.0)
    with pytest.raises(Stop, match="diverged") as ended:
        run.update(loss=201.0)
    assert run.notes.rows[-1]["train_loss"] == 200.5, "the row says where"
    assert "the training loss is 200, over 100 times that of the first update, 2 (run" in getattr(
        ended.value, "message", ""
    )


def test_a_small_loss_may_rise_far(tmp_path: Path):
    """A run that begins with the weights of a trained one has a first loss of almost nothing."""
    run = Fixture(tmp_path, divergence_factor=100.0, epochs=9)
    for loss in (1e-6, 1e-6, 2.0, 2.0, 99.0, 99.0):
        run.update(loss=loss)
    run.update(loss=101.0)
    with pytest.raises(Stop, match="diverged"):
        run.update(loss=101.0)


def test_without_a_factor_no_finite_loss_is_divergence(tmp_path: Path):
    run = Fixture(tmp_path)
    for loss in (2.0, 2.0, 1e30, 1e30):
        run.update(loss=loss)
    assert len(run.notes.rows) == 2


def test_first_loss_survives_a_checkpoint(tmp_path: Path):
    run = Fixture(tmp_path, divergence_factor=100.0)
    run.update(loss=2.0)
    run.update(loss=2.0)
    state = run.control.state_dict()
    for saved, status in ((state, "diverged"), ({k: v for k, v in state.items() if k != "first_loss"}, None)):
        # A checkpoint of an earlier version does not say what the run began with: its run is not judged.
        resumed = Fixture(tmp_path, divergence_factor=100.0)
        resumed.control.load_state_dict(saved)
        resumed.update(loss=500.0)
        if status is None:
            resumed.update(loss=500.0)
            continue
        with pytest.raises(Stop, match=status):
            resumed.update(loss=500.0)


def test_next_checkpoint_survives_one(tmp_path: Path):
    """Resumed from the checkpoint at 2 passes, a run writes its next one at 4, not at the next evaluation."""
    run, other = Fixture(tmp_path, checkpoint_every=2.0), Fixture(tmp_path, checkpoint_every=2.0)
    for _ in range(4):
        run.update()
    other.control.load_state_dict(run.saved[-1][1]["course"])
    for _ in range(4):
        other.update()
    assert [updates for updates, _ in other.saved] == [8]


def test_the_state_continues_where_it_was(tmp_path: Path):
    run, other = Fixture(tmp_path, checkpoint_every=2.0), Fixture(tmp_path, checkpoint_every=2.0)
    for _ in range(3):
        run.update()
    other.control.load_state_dict(run.control.state_dict())
    for _ in range(3):
        run.update()
        other.update()
    assert [row["epoch"] for row in other.notes.rows] == [2.0, 3.0]
    assert [updates for updates, _ in other.saved] == [updates for updates, _ in run.saved] == [4]
    assert other.control.state_dict() | {"train_wall": 0} == run.control.state_dict() | {"train_wall": 0}


def test_training_time_stands_during_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr("runner.loop.train_control.time.perf_counter", lambda: clock[0])
    run = Fixture(tmp_path)

    def slow(weights: torch.Tensor, statistics: torch.Tensor) -> Score:
        clock[0] += 1000
        return Score(0.5, 10.0)

    evaluator: Any = slow
    run.control.evaluator = evaluator
    run.control.start()
    for _ in range(4):
        clock[0] += 1
        run.update()
    assert run.control.wall() == 4.0
    run.control.pause()
    clock[0] += 50
    assert run.control.wall() == run.control.train_wall == 4.0


def test_another_ranks_evaluation_is_only_counted(tmp_path: Path):
    run = Fixture(tmp_path)
    run.control.advance(10, 1.0, None)
    assert run.control.evaluation_due()
    run.control.skip_evaluation()
    assert not run.control.evaluation_due()
    assert run.evaluated == 0


def test_lost_peers_exit_with_code_3():
    lost = PeerLost("worker 3 is gone")
    assert (lost.status, lost.code, lost.message) == ("interrupted", 3, "worker 3 is gone")
