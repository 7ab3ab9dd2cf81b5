from collections.abc import Callable
from pathlib import Path

from runner.report.collect import collect
from runner.report.panels import Curve, mean_curve

MakeRun = Callable[..., Path]


def drawn(tmp_path: Path, along: str = "epoch") -> Curve:
    return mean_curve(collect([tmp_path]), along, "test_error", "asgd", 0)


def test_a_curve_is_of_ended_runs_and_of_each_seed_once(make_run: MakeRun, tmp_path: Path) -> None:
    planned = {"run.epochs": 3.0}
    make_run("a", [60.0], status="interrupted", config=planned)
    make_run("b", [60.0, 30.0, 10.0])
    make_run("c", [60.0, 30.0, 12.0], seed=1)
    make_run("d", [60.0, 30.0, 12.0], seed=1)
    curve = drawn(tmp_path)
    assert (curve.x, curve.y) == ([1.0, 2.0, 3.0], [60.0, 30.0, 11.0])
    assert curve.spread == [0.0, 0.0, 2.0**0.5]
