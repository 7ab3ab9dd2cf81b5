from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report.collect import collect
from runner.report.curves import Curve, Panel, falls_far, mean_curve

MakeRun = Callable[..., Path]


def drawn(tmp_path: Path, along: str = "epoch") -> Curve:
    return mean_curve(collect([tmp_path]), along, "test_error", "asgd", 0)


def test_curve_takes_each_ended_seed_once(make_run: MakeRun, tmp_path: Path) -> None:
    planned = {"run.epochs": 3.0}
    make_run("a", [60.0], status="interrupted", config=planned)
    make_run("b", [60.0, 30.0, 10.0])
    make_run("c", [60.0, 30.0, 12.0], seed=1)
    make_run("d", [60.0, 30.0, 12.0], seed=1)
    curve = drawn(tmp_path)
    assert (curve.x, curve.y) == ([1.0, 2.0, 3.0], [60.0, 30.0, 11.0])
    assert curve.spread == [0.0, 0.0, 2.0**0.5]


def falling(every: float, last: float = 4.0) -> list[float | None]:
    return [80 / (1 + every * k) for k in range(1, 1 + round(last / every))]


@pytest.mark.parametrize(("every", "x"), [((1.0, 0.5), [1.0, 2.0, 3.0, 4.0]), ((0.75, 0.5), [1.5, 3.0])])
def test_average_at_common_evaluations(
    make_run: MakeRun, tmp_path: Path, every: tuple[float, float], x: list[float]
) -> None:
    for seed, step in enumerate(every):
        errors = falling(step, 4.0 if step != 0.75 else 3.75)
        make_run(f"a{seed}", errors, seed=seed, every=step, seconds=10.0 + 2 * seed, config={"run.epochs": 4.0})
    curve = drawn(tmp_path)
    assert curve.x == x
    assert curve.y == pytest.approx([80 / (1 + passes) for passes in x])
    assert curve.spread == pytest.approx([0.0] * len(x))
    # Seconds differ between seeds: they are averaged over rows after the same passes.
    assert drawn(tmp_path, "seconds").x == pytest.approx([11 * passes for passes in x])
    assert drawn(tmp_path, "seconds").y == curve.y


def test_missing_value_has_no_mean(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [60.0, None, 10.0])
    make_run("b", [62.0, 30.0, 12.0], seed=1)
    curve = drawn(tmp_path)
    assert (curve.x, curve.y) == ([1.0, 3.0], [61.0, 11.0])


@pytest.mark.parametrize(
    ("values", "far"),
    [([1.0, 1e-2, 1e-3], True), ([1.0, 2e-3], False), ([1.0, 0.0], False), ([1.0, -1e-9], False), ([5.0, 5.0], False)],
)
def test_decades_have_a_logarithmic_axis(values: list[float], far: bool) -> None:
    curves = [Curve("a", 0, [1.0], [value], [], None) for value in values]
    assert falls_far([Panel("", "duality gap", curves[:1]), Panel("", "duality gap", curves[1:])]) == far
