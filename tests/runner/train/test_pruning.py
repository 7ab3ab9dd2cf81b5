from pathlib import Path
from typing import Any

import pytest

from runner.train.pruning import PRUNERS, VARIABLE, Judge, PruningFile, Trial, judge_of_this_run
from tests.trial import run_in

pytest.importorskip("optuna", reason='pip install -e ".[optuna]"')


def rows(*scores: float | None, every: float = 1.0) -> list[dict[str, Any]]:
    return [{"epoch": every * number, "validation_error": score} for number, score in enumerate(scores, start=1)]


def known(*trials: Trial, pruner: str = "median", every: float = 1.0, **options: Any) -> PruningFile:
    return PruningFile("0: asgd", pruner, options, "validation_error", every, 9, list(trials))


def whole(*scores: float) -> Trial:
    return Trial("COMPLETE", scores[-1], list(enumerate(scores, start=1)))


def test_a_run_behind_the_median_is_pruned() -> None:
    before = [whole(30.0, 20.0, 10.0)] * 2
    judge = Judge(known(*before, n_startup_trials=2))
    assert not judge.prunes(rows(29.0))
    # Better than it was, and yet behind the others at the same evaluation.
    assert judge.prunes(rows(29.0, 28.0))
    assert judge.prunes(rows(29.0, 28.0, 1.0)), "what is decided stays so"
    assert not Judge(known(*before, n_startup_trials=3)).prunes(rows(29.0, 28.0)), "too few runs to be behind of"


def test_rows_at_once_decide_as_one_by_one() -> None:
    scores = (40.0, 30.0, 25.0, 24.0, 23.0)
    for pruner in PRUNERS:
        before: list[Trial] = []
        for lead in (10.0, 0.0, 5.0, -3.0, 8.0, 20.0, -10.0, 15.0):
            own = rows(*(score + lead for score in scores))
            step_by_step = Judge(known(*before, pruner=pruner))
            for count in range(1, len(own) + 1):
                step_by_step.prunes(own[:count])
            again = Judge(known(*before, pruner=pruner))
            assert again.prunes(own) == step_by_step.pruned
            assert again.trial("COMPLETE", 1.0) == step_by_step.trial("COMPLETE", 1.0)
            before.append(
                again.trial(
                    "PRUNED" if again.pruned else "COMPLETE", None if again.pruned else own[-1]["validation_error"]
                )
            )
        assert {trial.state for trial in before} == {"COMPLETE", "PRUNED"}, pruner


def test_steps_are_effective_passes() -> None:
    before = [whole(30.0, 20.0, 10.0)] * 2
    own = known(*before, n_startup_trials=2, every=0.5)
    # The second evaluation is at step 2, whatever the run lacked before it.
    judge = Judge(own)
    assert judge.prunes(rows(None, 28.0, every=0.5))
    assert judge.trial("PRUNED").reported == [(2, 28.0)]
    # The last row of a run that is no whole number of steps long repeats a step.
    judge = Judge(own)
    judge.prunes([*rows(9.0, 9.0, every=0.5), {"epoch": 1.2, "validation_error": 1.0}])
    assert judge.trial("COMPLETE", 1.0).reported == [(1, 9.0), (2, 9.0)]


def test_a_file_brings_back_all_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = known(whole(3.0, 2.0), Trial("PRUNED", None, [(1, 9.0)], {"completed_rung_0": 9.0}), Trial("FAIL"), a=1)
    own.write(tmp_path / "pruning" / "0-3.json")
    assert PruningFile.read(tmp_path / "pruning" / "0-3.json") == own
    monkeypatch.delenv(VARIABLE, raising=False)
    assert judge_of_this_run() is None
    known(whole(1.0)).write(tmp_path / "1.json")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "1.json"))
    judge = judge_of_this_run()
    assert judge is not None
    assert not judge.prunes(rows(50.0))


RUN = (
    *("algorithm=asgd", "model=linear", "dataset.limit_train=120", "dataset.limit_test=20", "dataset.validation=0.2"),
    *("run.epochs=3", "run.batch_size=8"),
)


def test_a_pruned_run_ends_and_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(*[whole(100.0, 0.0, 0.0)] * 2, n_startup_trials=2).write(tmp_path / "0-2.json")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "0-2.json"))
    code, summary = run_in(tmp_path / "run", *RUN)
    assert (code, summary["status"], summary["epochs"]) == (0, "pruned", 2.0)
    assert (tmp_path / "run" / "weights.safetensors").exists()
    # Judged again as far as it has come: what was decided stays so, without a further evaluation.
    code, again = run_in(tmp_path / "run", *RUN, f"run.resume={tmp_path / 'run'}")
    assert (code, again["status"], again["weights_sha256"]) == (0, "pruned", summary["weights_sha256"])
    # By hand, it goes on to the end of a run that was never judged.
    monkeypatch.delenv(VARIABLE)
    _, resumed = run_in(tmp_path / "run", *RUN, f"run.resume={tmp_path / 'run'}")
    _, unjudged = run_in(tmp_path / "whole", *RUN)
    assert (resumed["status"], resumed["weights_sha256"]) == ("completed", unjudged["weights_sha256"])
    assert resumed["bytes_sent"] == unjudged["bytes_sent"]
