"""Own times, categories and the file of a profile, on a clock that the test moves."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.config import startup
from runner.run_folder import profile as profiling
from runner.run_folder.profile import CLOCK, DATA, EVALUATION, GRADIENTS, LOGGING, REST, UPDATE, Profile, ProfiledCall
from tests.terminal import console, written


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


def test_own_times_add_up_to_the_whole(clock: Clock, tmp_path: Path):
    made, parts = measured(clock, ("compute", GRADIENTS), ("load", DATA), ("fail", UPDATE))
    clock.now += 0.5
    assert parts.compute() == "gradient"
    parts.load()
    with pytest.raises(ValueError, match="no"):
        parts.fail()
    seconds = made.finish(tmp_path, console())
    assert {name: took for name, took in seconds.items() if took} == {
        "start: command and processes": 7.0,
        "start: data": 3.0,
        GRADIENTS: 2.0,
        UPDATE: 4.0,
        DATA: 2.0,
        REST: 0.5,
    }
    assert sum(seconds.values()) == 18.5


def test_evaluation_keeps_what_it_computes(clock: Clock, tmp_path: Path):
    made, parts = measured(clock, ("evaluate", EVALUATION), ("compute", GRADIENTS), ("load", DATA), ("log", LOGGING))
    parts.evaluate()
    seconds = made.finish(tmp_path, console())
    assert (seconds[EVALUATION], seconds[GRADIENTS], seconds[LOGGING], seconds[DATA]) == (4.0, 0.0, 0.5, 1.0)


def test_what_is_yielded_is_measured(clock: Clock, tmp_path: Path):
    made, parts = measured(clock, ("answers", UPDATE))
    for _ in parts.answers():
        clock.now += 10
    assert made.finish(tmp_path, console())[UPDATE] == 2.0


def test_other_threads_and_missing_functions_are_left_out(clock: Clock, tmp_path: Path):
    made, parts = measured(clock, ("load", DATA), ("rows", DATA))
    assert not hasattr(parts, "rows")
    thread = threading.Thread(target=parts.load)
    thread.start()
    thread.join()
    assert made.finish(tmp_path, console())[DATA] == 0.0
    assert Parts.load is type(parts).load, "others of the class are as they were"


def test_device_is_waited_for_inside_the_call(clock: Clock, tmp_path: Path):
    def settle() -> None:
        clock.now += 8

    begun = startup.Startup(began=clock.now)
    begun.end()
    made, parts = Profile(begun, settle), Parts(clock)
    made.measure(ProfiledCall(parts, "compute", GRADIENTS))
    made.measure(ProfiledCall(parts, "load", CLOCK))
    parts.compute()
    seconds = made.finish(tmp_path, console())
    assert (seconds[GRADIENTS], seconds[CLOCK]) == (10.0, 1.0)


def test_file_has_calls_since_the_command(clock: Clock, tmp_path: Path):
    made, parts = measured(clock, ("compute", GRADIENTS), ("load", DATA))
    parts.compute()
    made.finish(tmp_path, console())
    document: dict[str, Any] = json.loads((tmp_path / "profile.json").read_text())
    spans = [(e["name"], e["cat"], e["ts"], e["dur"]) for e in document["traceEvents"]]
    assert spans == [
        ("start: command and processes", "start", 0.0, 7e6),
        ("start: data", "start", 7e6, 3e6),
        ("Parts.load", DATA, 12e6, 1e6),
        ("Parts.compute", GRADIENTS, 10e6, 3e6),
    ]
    assert {e["ph"] for e in document["traceEvents"]} == {"X"}
    assert document["otherData"]["total"] == 13.0


def test_table_says_what_the_file_leaves_out(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profiling, "MOST_SPANS", 2)
    made, parts = measured(clock, ("load", DATA))
    for _ in range(5):
        parts.load()
    target = console(width=80)
    made.finish(tmp_path, target)
    text = written(target)
    assert "where 15.0 s went" in text
    assert any("data " in line and "5.00 s" in line and "33.3 %" in line for line in text.splitlines())
    assert "profile.json shows the first 2 calls; the table counts 3 more" in text
    assert len(json.loads((tmp_path / "profile.json").read_text())["traceEvents"]) == 2 + 2
