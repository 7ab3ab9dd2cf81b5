"""Own times and categories of a profile, on a clock that the test moves."""

import threading
from collections.abc import Iterator

import pytest

from runner.config import startup
from runner.run_folder import profile as profiling
from runner.run_folder.profile import (
    CLOCK,
    DATA,
    EVALUATION,
    GRADIENTS,
    LOGGING,
    REST,
    UPDATE,
    Profile,
    ProfiledCall,
    ReportedCall,
)


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Parts:
    """Functions that take time, and call each other."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def compute(self) -> str:
        self.clock.now += 2
        self.load()
        return "gradient"

    def load(self) -> None:
        self.clock.now += 1

    def fail(self) -> None:
        self.clock.now += 4
        raise ValueError("no")

    def answers(self) -> Iterator[int]:
        for number in range(2):
            self.clock.now += 1
            yield number

    def evaluate(self) -> None:
        self.clock.now += 1
        self.compute()
        self.log()

    def log(self) -> None:
        self.clock.now += 0.5
        self.load()

    def worked(self, number: int, begin: float, end: float) -> None:
        """What another process reports."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(startup, "time", found)
    monkeypatch.setattr(profiling, "time", found)
    return found


def measured(clock: Clock, *timed: tuple[str, str]) -> tuple[Profile, Parts]:
    """A profile of some functions, of a command that began 10 s ago and spent 3 of them on its data."""
    begun = startup.Startup(began=clock.now - 10)
    clock.now -= 3
    begun.enter(startup.DATA)
    clock.now += 3
    begun.end()
    made, parts = Profile(begun), Parts(clock)
    for name, category in timed:
        made.measure(ProfiledCall(parts, name, category))
    return made, parts


def test_own_times_add_up_to_the_whole(clock: Clock):
    made, parts = measured(clock, ("compute", GRADIENTS), ("load", DATA), ("fail", UPDATE))
    clock.now += 0.5
    assert parts.compute() == "gradient"
    parts.load()
    with pytest.raises(ValueError, match="no"):
        parts.fail()
    seconds = made.rows("the run")[0].seconds
    assert {name: took for name, took in seconds.items() if took} == {
        "start: command and processes": 7.0,
        "start: data": 3.0,
        GRADIENTS: 2.0,
        UPDATE: 4.0,
        DATA: 2.0,
        REST: 0.5,
    }
    assert sum(seconds.values()) == 18.5


def test_evaluation_keeps_what_it_computes(clock: Clock):
    made, parts = measured(clock, ("evaluate", EVALUATION), ("compute", GRADIENTS), ("load", DATA), ("log", LOGGING))
    parts.evaluate()
    seconds = made.rows("the run")[0].seconds
    assert (seconds[EVALUATION], seconds[GRADIENTS], seconds[LOGGING], seconds[DATA]) == (4.0, 0.0, 0.5, 1.0)


def test_what_is_yielded_is_measured(clock: Clock):
    made, parts = measured(clock, ("answers", UPDATE))
    for _ in parts.answers():
        clock.now += 10
    assert made.rows("the run")[0].seconds[UPDATE] == 2.0


def test_other_threads_and_missing_functions_are_left_out(clock: Clock):
    made, parts = measured(clock, ("load", DATA), ("rows", DATA))
    assert not hasattr(parts, "rows")
    thread = threading.Thread(target=parts.load)
    thread.start()
    thread.join()
    assert made.rows("the run")[0].seconds[DATA] == 0.0
    assert Parts.load is type(parts).load, "others of the class are as they were"


def test_device_is_waited_for_inside_the_call(clock: Clock):
    def settle() -> None:
        clock.now += 8

    begun = startup.Startup(began=clock.now)
    begun.end()
    made, parts = Profile(begun, settle), Parts(clock)
    made.measure(ProfiledCall(parts, "compute", GRADIENTS))
    made.measure(ProfiledCall(parts, "load", CLOCK))
    parts.compute()
    seconds = made.rows("the run")[0].seconds
    assert (seconds[GRADIENTS], seconds[CLOCK]) == (10.0, 1.0)


def test_calls_since_the_command_are_shown(clock: Clock):
    made, parts = measured(clock, ("compute", GRADIENTS), ("load", DATA))
    parts.compute()
    [row] = made.rows("the run")
    assert (row.name, row.left_out) == ("the run", 0)
    assert row.spans == [
        ("start: command and processes", "start", 90.0, 7.0),
        ("start: data", "start", 97.0, 3.0),
        ("Parts.load", DATA, 102.0, 1.0),
        ("Parts.compute", GRADIENTS, 100.0, 3.0),
    ]


def test_other_processes_have_rows_of_what_they_report(clock: Clock):
    made, parts = measured(clock)
    made.measure(ReportedCall(parts, "worked", "compute process", GRADIENTS))
    for number, begin, end in ((1, 101.0, 103.0), (0, 101.0, 101.5), (1, 104.0, 105.0)):
        parts.worked(number, begin, end)
    own, *others = made.rows("the run")
    assert own.seconds[GRADIENTS] == 0.0, "what others do takes none of this process's time"
    assert [(row.name, row.seconds) for row in others] == [
        ("compute process 0", {GRADIENTS: 0.5}),
        ("compute process 1", {GRADIENTS: 3.0}),
    ]
    assert others[1].spans == [(GRADIENTS, GRADIENTS, 101.0, 2.0), (GRADIENTS, GRADIENTS, 104.0, 1.0)]


def test_calls_beyond_the_most_count_alone(clock: Clock):
    begun = startup.Startup(began=clock.now)
    begun.end()
    made, parts = Profile(begun, most=2), Parts(clock)
    made.measure(ProfiledCall(parts, "load", DATA))
    made.measure(ReportedCall(parts, "worked", "compute process", GRADIENTS))
    for _ in range(5):
        parts.load()
        parts.worked(0, 1.0, 2.0)
    own, other = made.rows("the run")
    assert [(len(row.spans), row.left_out) for row in (own, other)] == [(1 + 2, 3), (2, 3)]
    assert (own.seconds[DATA], other.seconds[GRADIENTS]) == (5.0, 5.0)
