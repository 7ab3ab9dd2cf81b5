from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report.claims import judge
from runner.report.collect import collect
from runner.report.published import Claim
from runner.report.run import Run

MakeRun = Callable[..., Path]


@pytest.fixture
def rates(make_run: MakeRun, tmp_path: Path) -> Callable[..., dict[str, list[Run]]]:
    """Turns the cells that came to their target into runs: the layers' learning rates by seed, of 1, 10 and 100."""

    def make(**reached: list[list[str]]) -> dict[str, list[Run]]:
        made = {}
        for layer, by_seed in reached.items():
            for rate in ("1", "10", "1e2"):
                folder = f"{layer}_{rate}"
                for seed, those in enumerate(by_seed):
                    summary = {"epochs_to_target": 3.0} if rate in those else {}
                    make_run(f"{folder}/{seed}", [90.0], seed=seed, summary=summary)
                made[f"{rate}, {layer}"] = collect([tmp_path / "runs" / folder])
        return made

    return make


TEXT = "decades_between_bounds(epochs_to_target) > 0.5"
CLAIM = Claim(TEXT, "section 4.4.1")


def test_bounds_of_rows_are_compared_at_once(rates: Callable[..., dict[str, list[Run]]]) -> None:
    # That a smaller rate did not come to its target in time does not lower a layer's bound.
    runs = rates(first=[["1", "1e2"], ["1e2"]], second=[["1"], ["1"]], third=[["1", "10"], ["10"]])
    verdict = judge(CLAIM, runs)
    assert (verdict.word, verdict.because) == ("holds", "difference +1.50, 95 % interval +1.50 to +1.50, 2 seeds")
    assert judge(Claim(TEXT.replace("0.5", "2.5"), ""), runs).word == "fails"
    equal = rates(fourth=[["10"], ["10"]], fifth=[["1", "10"], ["10"]])
    assert judge(CLAIM, equal).word == "fails"


def test_rows_without_a_bound_leave_it_open(rates: Callable[..., dict[str, list[Run]]]) -> None:
    runs = rates(first=[["1e2"], ["1e2"]], second=[["1"], []])
    verdict = judge(CLAIM, runs)
    assert (verdict.word, verdict.because) == ("undecided", "no bound of epochs_to_target of seed 1 of some row")
    # Two rows of three would do to compare, but the third's bound might be further away.
    of_three = rates(left=[["1e2"], ["1e2"]], middle=[["1"], ["1"]], right=[["1"], []])
    assert judge(CLAIM, of_three).because == "no bound of epochs_to_target of seed 1 of some row"
    # One row alone, or a row that a seed was not run with.
    alone = {name: found for name, found in runs.items() if name.endswith("first")}
    assert judge(CLAIM, alone).word == "not measured"
    runs["1, second"] = [run for run in runs["1, second"] if run.seed == 1]
    assert judge(CLAIM, runs).word == "not measured"


def test_columns_that_are_no_numbers_are_refused(rates: Callable[..., dict[str, list[Run]]]) -> None:
    runs = {f"asgd, {name}": found for name, found in rates(first=[["1"]]).items()}
    with pytest.raises(ValueError, match="asgd is not a number; allowed: columns that are"):
        judge(CLAIM, runs)
