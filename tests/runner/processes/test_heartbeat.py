import multiprocessing
from types import SimpleNamespace

import pytest

from runner.processes import heartbeat
from runner.processes.heartbeat import Heartbeats


class Clock:
    """A monotonic clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def made(timeout: float = 100.0) -> Heartbeats:
    return Heartbeats(multiprocessing.get_context("forkserver"), 3, timeout)


def test_silence_grows_until_the_next_beat(clock: Clock):
    heartbeats = made()
    heartbeats.beat(1)
    clock.now += 7
    assert heartbeats.silence(1) == 7
    heartbeats.beat(1)
    assert heartbeats.silence(1) == 0


def test_before_its_first_beat_nobody_is_silent(clock: Clock):
    heartbeats = made()
    heartbeats.beat(1)
    clock.now += 7
    assert [heartbeats.silence(rank) for rank in range(3)] == [0, 7, 0]


def test_a_finished_rank_is_not_silent(clock: Clock):
    heartbeats = made()
    for rank in range(3):
        heartbeats.beat(rank)
    heartbeats.mark_finished(2)
    clock.now += 7
    assert [heartbeats.silence(rank) for rank in range(3)] == [7, 7, 0]
    assert [heartbeats.finished(rank) for rank in range(3)] == [False, False, True]


def test_reset_ends_the_silence_of_started_ranks(clock: Clock):
    heartbeats = made()
    heartbeats.beat(0)
    heartbeats.beat(2)
    clock.now += 7
    heartbeats.reset()
    assert [heartbeats.silence(rank) for rank in range(3)] == [0, 0, 0]
    clock.now += 5
    assert [heartbeats.silence(rank) for rank in range(3)] == [5, 0, 5], "rank 1 has not started yet"


def test_the_last_step_and_its_age(clock: Clock):
    heartbeats = made()
    heartbeats.mark_step(1, 41)
    clock.now += 3
    heartbeats.mark_step(1, 42)
    clock.now += 2
    assert heartbeats.last_step(1) == (42, 2)
    assert heartbeats.last_step(0)[0] == 0


def test_ranks_join_once_for_all():
    heartbeats = made()
    assert not heartbeats.joined
    heartbeats.mark_joined()
    assert heartbeats.joined


@pytest.mark.parametrize(("timeout", "interval"), [(100.0, 0.5), (10.0, 0.5), (4.0, 0.2), (0.1, 0.005)])
def test_many_beats_fit_into_a_timeout(timeout: float, interval: float):
    assert made(timeout).interval == pytest.approx(interval)
