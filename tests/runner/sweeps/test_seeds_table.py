import json
from pathlib import Path
from typing import Any

import pytest

from runner.sweeps.job import Job
from runner.sweeps.seeds_table import print_seeds_table


def jobs(tmp_path: Path, *given: tuple[str, dict[str, Any]]) -> list[Job]:
    """Ended jobs of these overrides, with these summaries; `code` is the exit code."""
    found = []
    for number, (overrides, summary) in enumerate(given):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = summary.pop("code", 0)
        (folder / "summary.json").write_text(json.dumps({"status": "completed", **summary}))
        found.append(Job(number, (*overrides.split(), "run.epochs=1"), folder, code))
    return found


def table(out: str) -> dict[str, list[str]]:
    """The cells of each row, by its overrides."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in rows}


def test_seeds_are_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def errors(final: float, best: float) -> dict[str, Any]:
        return {"final_test_error": final, "best_test_error": best}

    print_seeds_table(
        jobs(
            tmp_path,
            ("algorithm=asgd seed=0", errors(3.0, 2.0)),
            ("algorithm=dc_asgd_a seed=0", errors(2.5, 2.5)),
            ("algorithm=asgd seed=1", errors(5.0, 2.0)),
            ("algorithm=dc_asgd_a seed=1", errors(2.7, 2.6)),
        )
    )
    out = capsys.readouterr().out
    assert "mean ± standard deviation over seeds" in out
    assert table(out) == {
        "algorithm=asgd": ["2", "4.00 ± 1.41", "2.00 ± 0.00", ""],
        "algorithm=dc_asgd_a": ["2", "2.60 ± 0.14", "2.55 ± 0.07", "best"],
    }


def test_missing_seeds_are_counted_and_never_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What is left of a setting of which some runs diverged or failed is the lucky part."""
    print_seeds_table(
        jobs(
            tmp_path,
            ("schedule.lr=1 seed=0", {"final_test_error": 1.0}),
            ("schedule.lr=1 seed=1", {"final_test_error": 1.0, "status": "diverged"}),
            ("schedule.lr=1 seed=2", {"final_test_error": 1.0, "status": "failed", "code": 1}),
            ("schedule.lr=0.1 seed=0", {"final_test_error": 2.0}),
            ("schedule.lr=0.01 seed=0", {"final_test_error": 3.0}),
        )
    )
    assert table(capsys.readouterr().out) == {
        "schedule.lr=1": ["1 of 3", "1.00", "-", ""],
        "schedule.lr=0.1": ["1", "2.00", "-", "best"],
        "schedule.lr=0.01": ["1", "3.00", "-", ""],
    }


def test_the_validation_split_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def errors(validation: float, test: float) -> dict[str, Any]:
        return {"best_validation_error": validation, "test_error_at_best_validation": test, "final_test_error": test}

    print_seeds_table(
        jobs(
            tmp_path,
            ("schedule.lr=1 seed=0", errors(3.0, 1.0)),
            ("schedule.lr=1 seed=1", errors(3.0, 1.0)),
            ("schedule.lr=2 seed=0", errors(2.0, 4.0)),
        )
    )
    assert table(capsys.readouterr().out)["schedule.lr=2"] == ["1", "2.00", "4.00", "best"]


def test_convex_objectives_have_their_own_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    own = [
        (f"seed={seed}", {"suboptimality": value, "final_train_loss": 1.0}) for seed, value in ((0, 1e-6), (1, 3e-6))
    ]
    print_seeds_table(jobs(tmp_path, *own))
    assert table(capsys.readouterr().out) == {"run.epochs=1": ["2", "2e-06 ± 1.41e-06", ""]}


def test_other_sweeps_have_no_such_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    print_seeds_table(jobs(tmp_path, ("seed=0 schedule.lr=1", {"final_test_error": 1.0}), ("seed=1 schedule.lr=2", {})))
    assert capsys.readouterr().out == ""
