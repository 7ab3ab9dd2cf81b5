from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.report import metrics
from runner.report.archive import ArchivedRun
from runner.report.collect import collect

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("final_test_error", 30.0),
        ("best_test_error", 20.0),
        ("lowest_test_error", 20.0),
        ("final_train_error", 29.0),
        ("final_accuracy", 0.7),
        ("best_accuracy", 0.8),
        ("seconds_per_epoch", 10.0),
        ("samples_per_virtual_second", 100.0),
        ("epochs_to(40)", 2.0),
        ("seconds_to(20.0)", 30.0),
        ("seconds_to(19)", None),
        ("updates_to(20)", 30.0),
        ("reaches(test_error,20)", 1.0),
        ("reaches(test_error,19)", 0.0),
        ("reaches(no_such_column,19)", None),
        ("seconds", 40.0),
        ("nothing", None),
        # Of the four passes that the run was to make, at 1, 2, 3 and 4.
        ("test_error_after(0.25)", 50.0),
        ("test_error_after(0.6)", 20.0),
        ("accuracy_after(0.5)", 0.6),
        ("rises(test_error,0.75)", 0.0),
        ("rises(accuracy,0.75)", 0.3),
        ("rises(test_error,0.25)", None),
        ("lowest_accuracy", 0.5),
    ],
)
def test_numbers_of_a_run(make_run: MakeRun, tmp_path: Path, metric: str, value: float | None) -> None:
    make_run("a", [50.0, 40.0, 20.0, 30.0])
    (run,) = collect([tmp_path])
    assert metrics.measured(run, metric) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("metric", "chosen"),
    [
        ("best_test_error", "best_validation_error"),
        ("final_test_error", "final_validation_error"),
        ("final_accuracy", "final_validation_error"),
        ("final_accuracy_top5", "final_validation_error_top5"),
        ("final_test_loss", "final_validation_loss"),
        ("lowest_test_loss", "lowest_validation_loss"),
        ("final_test_perplexity", "final_validation_perplexity"),
        ("final_train_loss", "final_train_loss"),
        ("seconds", "seconds"),
    ],
)
def test_validation_split_chooses(make_run: MakeRun, tmp_path: Path, metric: str, chosen: str) -> None:
    make_run("a", [50.0], config={"dataset.validation": 0.1})
    make_run("b", [50.0], config={"dataset.validation": None})
    make_run("c", [50.0])
    with_split, *others = collect([tmp_path])
    assert metrics.chosen_by(metric, [with_split]) == chosen
    for other in others:
        assert metrics.chosen_by(metric, [with_split, other]) == metric


def test_share_is_of_the_length_asked_for(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0, 40.0, None], status="diverged", config={"run.epochs": 4.0})
    make_run("b", [50.0, 40.0, None], status="diverged", config={"run.epochs": 40.0})
    run, early = collect([tmp_path])
    assert metrics.measured(early, "test_error_after(0.5)") is None
    assert metrics.measured(run, "test_error_after(0.5)") == 40.0
    assert metrics.measured(run, "test_error_after(0.9)") is None
    assert metrics.measured(run, "rises(test_error,0.9)") is None


def test_rises_are_added_up(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [50.0, 60.0, 20.0, 25.0, 90.0])
    (run,) = collect([tmp_path])
    assert metrics.measured(run, "rises(test_error,0.8)") == 15.0


def test_top_five_accuracy_is_a_fraction() -> None:
    run = ArchivedRun(Path("a"), "a", rows=[{"epoch": 1.0, "test_error": 40.0, "test_error_top5": 14.0}])
    assert metrics.measured(run, "final_accuracy_top5") == pytest.approx(0.86)
    assert metrics.column(run, "accuracy_top5") == [pytest.approx(0.86)]
    assert metrics.text("final_accuracy_top5", 0.85818) == "0.8582"


def test_values_have_the_digits_their_metric_deserves() -> None:
    assert metrics.text("final_test_error", 8.654) == "8.65"
    assert metrics.text("final_accuracy", 0.94666) == "0.9467"
    assert metrics.text("something_else", 0.123456) == "0.1235"
    assert metrics.text("final_test_error", None) == "–"
    assert metrics.name("final_test_error") == "test error, %"
    assert metrics.name("duality_gap") == "duality gap"


@pytest.mark.parametrize(
    ("mean", "spread", "told"),
    [
        (14050.4, 547.6, "14,050 ± 548"),
        (1.23456e-5, 3e-6, "(1.235 ± 0.300)e-05"),
        (0.01234, 0.0005, "0.01234 ± 0.00050"),
        (6.0, 1.0, "6 ± 1"),
        (6.0, None, "6"),
        (None, None, "–"),
    ],
)
def test_mean_and_spread_have_equal_decimals(mean: float | None, spread: float | None, told: str) -> None:
    assert metrics.with_spread("something_else", mean, spread) == told


def test_numbers_of_a_layer() -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 1.0, "sufficient_direction": {"module1": 0.5}},
        {"epoch": 1.0, "variance_factor": {"module1": 9.0}},
        {"epoch": 2.0, "sufficient_direction": {"module1": -0.25}},
        {"epoch": 3.0, "sufficient_direction": {"module1": 0.75}},
    ]
    run = ArchivedRun(Path("a"), "a", layer_list=rows)
    found = [metrics.measured(run, f"{how}_sufficient_direction(module1)") for how in ("early", "lowest", "final")]
    assert found == [0.5, -0.25, 0.75]
    assert metrics.measured(run, "final_sufficient_direction(module2)") is None
