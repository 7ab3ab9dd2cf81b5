from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from runner.report.evaluations import numbered, thinned


def rows(passes: Iterable[float | None], update: float = 0.01) -> list[dict[str, Any]]:
    return [{"epoch": e, "updates": None if e is None else round(e / update)} for e in passes]


def test_same_passes_are_one_evaluation() -> None:
    assert numbered([rows([1.0, 2.0]), rows([0.5, 1.0, 1.5, 2.0]), rows([1.0])]) == [[1, 3], [0, 1, 2, 3], [1]]
    assert numbered([rows([0.5, 1.0])]) == [[0, 1]]
    assert numbered([[], rows([1.0])]) == [[], [0]]


def test_less_than_an_update_apart() -> None:
    assert numbered([rows([1.0, 2.004]), rows([1.009, 2.0])]) == [[0, 1], [0, 1]]
    assert numbered([rows([1.0, 2.0]), rows([1.01, 2.0])]) == [[0, 2], [1, 2]]
    # What is the very same goes before what is near.
    assert numbered([rows([1.0]), rows([0.995, 1.0])]) == [[1], [0, 1]]


def test_rows_without_passes_follow_the_row_before() -> None:
    assert numbered([rows([None, None]), rows([None, 1.0])]) == [[0, 1], [0, 2]]
    assert numbered([[{"epoch": 1.0}, {}], [{"epoch": 1.0}, {"epoch": 1.5}]]) == [[0, 1], [0, 2]]


def test_long_runs_are_thinned_alike() -> None:
    long, short = [k / 100 for k in range(1, 1001)], [k * 11 / 100 for k in range(1, 91)]
    numbers = numbered([rows(long, 0.005), rows(short, 0.005)])
    first, second = thinned(numbers, 400)
    assert (first[0], first[-1], second) == (0, 999, list(range(90)))
    assert len(first) <= 402
    assert max(b - a for a, b in pairwise(first)) <= 5
    assert {numbers[1][place] for place in second} <= {numbers[0][place] for place in first}


def test_runs_of_different_lengths_are_thinned_alike() -> None:
    numbers = numbered([rows(range(1, count + 1)) for count in (401, 800, 1000)])
    kept = [
        {numbers[run][place] for place in places if place < 400} for run, places in enumerate(thinned(numbers, 400))
    ]
    assert kept[0] == kept[1] == kept[2]
    assert thinned([list(range(400))], 400) == [list(range(400))]
