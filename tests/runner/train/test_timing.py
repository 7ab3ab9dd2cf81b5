import pytest

from runner.train import timing
from runner.train.timing import TIMED, UNTIMED, median_seconds


def test_median_of_timed_calls(monkeypatch: pytest.MonkeyPatch):
    """Neither the first, untimed calls count, nor one that was interrupted, nor what comes before each."""
    now = 0.0
    durations = iter([50.0] * UNTIMED + [1000.0, 3.0, 3.0, 2.0] + [1.0] * (TIMED - 4))

    def call() -> None:
        nonlocal now
        now += next(durations)

    def before() -> None:
        nonlocal now
        now += 7.0

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    # 1, 1, 1, 2, 3, 3, 1000: with the untimed ones it would be 3.
    assert median_seconds(call, before=before) == 2.0
    assert next(durations, None) is None
