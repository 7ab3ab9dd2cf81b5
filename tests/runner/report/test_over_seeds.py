from collections.abc import Mapping

import pytest

from runner.report.over_seeds import OverSeeds


class Row(OverSeeds):
    def __init__(self, values: Mapping[int, float]) -> None:
        self.values = values


@pytest.mark.parametrize(
    ("values", "mean", "spread"),
    [({}, None, None), ({3: 2.0}, 2.0, None), ({0: 1.0, 1: 2.0, 2: 6.0}, 3.0, 7**0.5)],
)
def test_spread_is_of_a_sample(values: dict[int, float], mean: float | None, spread: float | None):
    assert Row(values).mean == mean
    assert Row(values).spread == (None if spread is None else pytest.approx(spread))
