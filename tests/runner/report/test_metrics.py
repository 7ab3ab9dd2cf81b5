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
        ("reaches(test_error,20)", 1.0),
        ("reaches(test_error,19)", 0.0),
        ("reaches(no_such_column,19)", None),
        ("seconds", 40.0),
        ("nothing", None),
    ],
)
def test_numbers_of_a_run(make_run: MakeRun, tmp_path: Path, metric: str, value: float | None) -> None:
    make_run("a", [50.0, 40.0, 20.0, 30.0])
    (run,) = collect([tmp_path])
    assert metrics.measured(run, metric) == (None if value is None else pytest.approx(value))


def test_values_have_the_digits_their_metric_deserves() -> None:
    assert metrics.text("final_test_error", 8.654) == "8.65"
    assert metrics.text("final_accuracy", 0.94666) == "0.9467"
    assert metrics.text("something_else", 0.123456) == "0.1235"
    assert metrics.text("final_test_error", None) == "–"
    assert metrics.name("final_test_error") == "test error, %"
    assert metrics.name("duality_gap") == "duality gap"


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
