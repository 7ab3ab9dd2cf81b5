from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from runner.report.claims import counted, interval, judge
from runner.report.collect import collect
from runner.report.published import Claim
from runner.report.run import Run

MakeRun = Callable[..., Path]


def claim(text: str) -> Claim:
    return Claim(text, "table 1")


@pytest.fixture
def cells(make_run: MakeRun, tmp_path: Path) -> Callable[..., dict[str, list[Run]]]:
    """Turns final errors by cell and seed into runs."""

    def make(**errors: list[float]) -> dict[str, list[Run]]:
        made = {}
        for name, values in errors.items():
            for seed, error in enumerate(values):
                make_run(f"{name}/{seed}", [90.0, error], seed=seed)
            made[name] = collect([tmp_path / "runs" / name])
        return made

    return make


def test_the_interval_is_students() -> None:
    differences = [-1.0, -1.5, -0.7, -2.0]
    low, high = interval(differences)
    half = stats.t.ppf(0.975, 3) * np.std(differences, ddof=1) / 2
    assert (low, high) == pytest.approx((np.mean(differences) - half, np.mean(differences) + half))


def test_seeds_are_paired(cells: Callable[..., dict[str, list[Run]]]) -> None:
    # Between the seeds lie 10 percent, between the methods 1: only pairs show it.
    runs = cells(a=[20.0, 30.0, 40.0], b=[21.0, 31.1, 40.9])
    verdict = judge(claim("final_test_error[a] < final_test_error[b]"), runs)
    assert verdict.word == "holds"
    assert "difference -1.00" in verdict.because
    assert "3 seeds" in verdict.because
    assert judge(claim("final_test_error[a] > final_test_error[b]"), runs).word == "fails"
    assert judge(claim("final_test_error[b] < final_test_error[a]"), runs).word == "fails"
    assert judge(claim("final_test_error[b] >= final_test_error[a]"), runs).word == "holds"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("final_test_error[a] < 25", "holds"),
        ("final_test_error[a] > 25", "fails"),
        ("2 * final_test_error[a] < final_test_error[b]", "holds"),
        ("final_test_error[a] < 0.3 * final_test_error[b]", "fails"),
        ("abs(final_test_error[a] - final_test_error[c]) < 3", "holds"),
        ("abs(final_test_error[a] - final_test_error[c]) < 0.1", "undecided"),
        ("abs(final_test_error[a] - final_test_error[b]) < 3", "fails"),
        ("final_test_error[b] - final_test_error[a] > 29", "holds"),
        ("final_test_error[b] - final_test_error[a] > 31", "fails"),
        ("final_test_error[b] - final_test_error[a] < 31", "holds"),
        ("final_test_error[b] - final_test_error[a] < 29.9", "undecided"),
        ("final_test_error[b] - final_test_error[nothing] < 29", "not measured"),
        ("epochs_to(30)[a] < 3", "holds"),
        ("epochs_to(30)[b] < 3", "not measured"),
        ("final_test_error[a] < final_test_error[nothing]", "not measured"),
        ("no_such_metric[a] < 3", "not measured"),
        # Ratios, as speed-ups are: 2.5 of b over a, 1 of c over a.
        ("final_test_error[b] / final_test_error[a] > final_test_error[c] / final_test_error[a]", "holds"),
        ("final_test_error[b] / final_test_error[a] > 2.6", "fails"),
        ("2 * final_test_error[c] / final_test_error[a] < final_test_error[b] / final_test_error[a]", "holds"),
        ("abs(final_test_error[c] / final_test_error[a] - final_test_error[a] / final_test_error[c]) < 0.1", "holds"),
        ("final_test_error[a] / final_test_error[nothing] > 1", "not measured"),
        ("reaches(test_error,30)[b] < reaches(test_error,30)[a]", "holds"),
        ("reaches(test_error,10)[b] < reaches(test_error,10)[a]", "undecided"),
    ],
)
def test_what_claims_can_say(cells: Callable[..., dict[str, list[Run]]], text: str, word: str) -> None:
    runs = cells(a=[20.0, 20.1, 20.2], b=[49.9, 50.0, 50.2], c=[20.1, 20.0, 20.2])
    assert judge(claim(text), runs).word == word


def test_claims_are_counted_by_their_verdict(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[20.0, 20.1, 20.2], b=[49.9, 50.0, 50.2])
    texts = [
        "final_test_error[a] < 30",
        "final_test_error[b] < 30",
        "final_test_error[b] > 30",
        "no_such_metric[a] < 3",
    ]
    assert counted([judge(claim(text), runs) for text in texts]) == [2, 1, 0, 1]


def test_small_differences_are_shown(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[4.0e-9, 4.2e-9, 4.1e-9], b=[1e-15, 2e-15, 1e-15], c=[0.3, 0.3, 0.3], d=[0.1 + 0.2] * 3)
    small = judge(claim("final_test_error[a] < final_test_error[b]"), runs)
    assert small.word == "fails"
    assert small.because.startswith("difference +4.1e-09, 95 % interval +3.9e-09 to +4.3e-09")
    equal = judge(claim("final_test_error[c] < final_test_error[d]"), runs)
    assert (equal.word, equal.because) == ("undecided", "difference 0, 95 % interval 0 to 0, 3 seeds")


def test_noise_decides_nothing(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[20.0, 24.0], b=[22.0, 23.0])
    assert judge(claim("final_test_error[a] < final_test_error[b]"), runs).word == "undecided"


def test_one_seed_decides_nothing(cells: Callable[..., dict[str, list[Run]]]) -> None:
    verdict = judge(claim("final_test_error[a] < final_test_error[b]"), cells(a=[20.0], b=[40.0]))
    assert (verdict.word, verdict.because) == ("undecided", "difference -20.00, seed 0 alone")


def test_only_seeds_of_both_sides_count(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[20.0, 20.1, 20.2, 99.0], b=[30.0, 30.0, 30.1])
    assert "3 seeds" in judge(claim("final_test_error[a] < final_test_error[b]"), runs).because
    runs["b"] = [run for run in runs["b"] if run.seed == 2]
    runs["a"] = [run for run in runs["a"] if run.seed == 1]
    assert judge(claim("final_test_error[a] < final_test_error[b]"), runs).word == "not measured"


def test_equal_differences_are_certain(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[20.0, 21.0], b=[21.0, 22.0])
    assert judge(claim("final_test_error[a] < final_test_error[b]"), runs).word == "holds"
    assert judge(claim("final_test_error[a] < final_test_error[a]"), runs).word == "undecided"


@pytest.mark.parametrize("text", ["a < b", "final_test_error[a]", "final_test_error[a] != final_test_error[b]", ""])
def test_a_claim_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        judge(claim(text), {})


def test_seeds_that_never_arrive_are_undecided(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[20.0, 20.1, 50.0], b=[20.0, 20.2, 20.3])
    verdict = judge(claim("epochs_to(30)[a] < 3"), runs)
    assert (verdict.word, verdict.because) == ("undecided", "no epochs_to(30) of seed 2 of a")
    assert judge(claim("epochs_to(30)[b] < 1.5 * epochs_to(30)[a]"), runs).because == verdict.because
    assert judge(claim("epochs_to(30)[a] < 2 * epochs_to(30)[a]"), runs).because == verdict.because
    assert judge(claim("epochs_to(30)[b] < 3"), runs).word == "holds"


def test_gaps_near_zero_are_no_rounding(cells: Callable[..., dict[str, list[Run]]]) -> None:
    runs = cells(a=[1.0e-14, 1.2e-14, 1.1e-14], b=[3.0e-14, 3.3e-14, 3.2e-14])
    verdict = judge(claim("final_test_error[a] < final_test_error[b]"), runs)
    assert verdict.word == "holds"
    assert "difference -2.1e-14" in verdict.because
