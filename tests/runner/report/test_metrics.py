from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report import metrics
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
