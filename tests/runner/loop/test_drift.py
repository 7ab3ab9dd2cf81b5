"""The gap and the direction of updates, by hand and in runs."""

import math
from pathlib import Path

import pytest
import torch

from algorithms.base import Field, Layout
from algorithms.ssgd import SSGD
from runner.config.errors import InputError
from runner.loop.drift import GAP, OF_UPDATES, UPDATE_COSINE, Drift
from runner.run_folder.trace import Trace
from runner.train import compatibility
from runner.train.executors import simulated
from tests.trial import QuadraticOracle, Trial, compose, equal, run_in, train

PLAIN = Layout(pull={"w": 2}, push={"g": 2})
SHORT = (
    *("model=mlp", "dataset.limit_train=104", "dataset.limit_test=20", "run.batch_size=8", "run.epochs=2"),
    *("cluster.workers=4", "schedule.lr=0.05"),
)
ASKED = "run.diagnostics=[gap,update_cosine]"


def test_two_workers_by_hand():
    w = torch.zeros(2)
    drift = Drift(OF_UPDATES, PLAIN, w, workers=2)
    for worker in (0, 1):
        drift.pulled(worker, {"w": w}, None)
    # Worker 0 steps along its gradient: no gap, and a cosine of one.
    drift.before(0, w, None)
    w.sub_(torch.tensor([3.0, 4.0]))
    drift.after(w, {"g": torch.tensor([6.0, 8.0])})
    # Worker 1 finds the weights 5 / sqrt(2) away, and momentum turns its step by 45 degrees.
    drift.before(1, w, None)
    w.sub_(torch.tensor([1.0, 1.0]))
    drift.after(w, {"g": torch.tensor([0.0, 7.0])})
    found = drift.columns()
    assert found["gap_mean"] == pytest.approx(5 / math.sqrt(2) / 2)
    assert found["gap_max"] == pytest.approx(5 / math.sqrt(2))
    assert found["update_cosine"] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    # Asked again before the next push, as for the summary, it says the same; then it begins anew.
    assert drift.columns() == found
    drift.pulled(0, {"w": w}, None)
    drift.before(0, w, None)
    drift.after(w, {"g": torch.tensor([1.0, 1.0])})
    # An ignored push has a gap, and no step that could have a direction.
    assert drift.columns() == {"gap_mean": 0.0, "gap_max": 0.0}


def test_what_the_method_keeps_is_not_copied():
    w, kept = torch.ones(2), {"w": torch.zeros(2)}
    drift = Drift([GAP], PLAIN, w, workers=1)
    drift.pulled(0, {"w": torch.full((2,), 9.0)}, kept)
    drift.before(0, w, kept)
    assert drift.columns() == {"gap_mean": 1.0, "gap_max": 1.0}


def test_messages_without_weights_are_refused():
    w = torch.zeros(2)
    with pytest.raises(InputError, match=r"^run\.diagnostics=gap: .*; allowed: "):
        Drift([GAP], Layout(pull={"w": 1}, push={"g": 2}), w, workers=1)
    with pytest.raises(InputError, match=r"^run\.diagnostics=update_cosine: .*; allowed: "):
        Drift([UPDATE_COSINE], Layout(pull={"w": 2}, push={"signs": Field(1, torch.uint8)}), w, workers=1)
    cfg = compose("algorithm=ssgd", "run.diagnostics=[gap]")
    with pytest.raises(InputError, match=r"^run\.diagnostics=gap: algorithm=ssgd has no parameter server"):
        compatibility.check_algorithm(cfg, SSGD, 4)


@pytest.mark.parametrize("name", ["asgd", "dana_dc", "rennala"])
def test_run_that_is_measured_has_the_same_bits(name: str, tmp_path: Path):
    plain = train(f"algorithm={name}", *SHORT, folder=tmp_path)
    measured = train(f"algorithm={name}", *SHORT, ASKED, folder=tmp_path)
    assert measured.sha256 == plain.sha256 and equal(measured.state, plain.state)
    for row, other in zip(measured.notes.rows, plain.notes.rows, strict=True):
        assert 0 < row.pop("gap_mean") < row.pop("gap_max")
        assert -1 <= row.pop("update_cosine") <= 1 + 1e-6
        assert row == other


def test_one_worker_has_no_gap_and_plain_steps_their_gradients_direction(tmp_path: Path):
    alone = ("algorithm=asgd", "algorithm.weight_decay=0", *SHORT, "cluster.workers=1", ASKED)
    for row in train(*alone, folder=tmp_path).notes.rows:
        assert row["gap_mean"] == row["gap_max"] == 0.0
        assert row["update_cosine"] == pytest.approx(1, abs=1e-4)


def test_weights_of_each_worker_are_its_own(tmp_path: Path):
    """Two workers of AD-PSGD on w²/2 from 16, with a rate of 1/4; gradients take 2 s, of worker 1 right after.

    Second 2: worker 0 finds its 16 where it was, and goes on to 12, along its gradient 16. Worker 1 finds its 16 too;
    both become 14, and it goes on to 10. Second 4: worker 0, which pulled 12, finds 14, and worker 1 what follows.
    """
    clock = ("cluster.compute.distribution=constant", "cluster.compute.seconds=2", "cluster.workers=2")
    size = ("model=linear", "dataset.limit_train=3", "run.batch_size=1", "run.epochs=1", "schedule.lr=0.25")
    given = ("algorithm=ad_psgd", "algorithm.weight_decay=0", *clock, *size, ASKED)
    (row,) = Trial(*given, folder=tmp_path, oracle=QuadraticOracle(16.0)).run().notes.rows
    assert (row["gap_mean"], row["gap_max"]) == (pytest.approx(2 / 3), 2.0)
    # All steps lead down, as their gradients do.
    assert row["update_cosine"] == 1.0


def test_run_that_goes_on_has_the_same_rows(tmp_path: Path):
    overrides = ("algorithm=asgd", *SHORT, ASKED, "run.checkpoint_every=100")
    expected = train(*overrides, folder=tmp_path)
    stopped = Trial(*overrides, folder=tmp_path, stop_after=5)
    state = stopped.stopped()
    continued = Trial(*overrides, folder=tmp_path).resume(state).run()
    assert stopped.notes.rows + continued.notes.rows == expected.notes.rows


def test_processes_measure_what_their_replay_does(tmp_path: Path):
    code, summary = run_in(tmp_path / "a", "algorithm=asgd", "cluster=processes", *SHORT, "cluster.workers=2", ASKED)
    assert code == 0 and summary["gap_mean"] > 0
    replayed = Trial("algorithm=asgd", *SHORT, "cluster.workers=2", ASKED, folder=tmp_path)
    # The same schedule in place of the clock's.
    replayed.executor = simulated(replayed.components, replayed.control, trace=Trace.read(str(tmp_path / "a")))
    replayed.run()
    assert replayed.sha256 == summary["weights_sha256"]
    for key in ("gap_mean", "gap_max", "update_cosine"):
        assert replayed.notes.rows[-1][key] == summary[key]
