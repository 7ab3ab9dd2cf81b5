"""Phases of a start on a clock that the test moves, and a command whose imports are slow."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from runner.cli import main, start
from runner.config import startup
from runner.run_folder.contents import read_summary
from runner.run_folder.run_writer import RunWriter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A process that began at second 1000 of the wall clock, 500 of the monotonic one; `now` counts from there."""
    found = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(time=lambda: 1000.0 + found.now, monotonic=lambda: 500.0 + found.now)
    monkeypatch.setattr(startup, "time", fake)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(create_time=lambda: 1000.0))
    return found


def test_start_counts_from_the_process(clock: SimpleNamespace):
    clock.now = 2.0
    found = startup.Startup(whole_process=True)
    for now, name in ((2.5, startup.CONFIGURATION), (3.0, startup.DATA), (4.0, startup.DATA), (7.0, startup.BUILD)):
        clock.now = now
        found.enter(name)
    clock.now = 8.0
    assert (found.over, found.end(), found.over) == (False, 8.0, True)
    clock.now = 9.0
    assert found.end() == 8.0, "a start ends once"
    assert found.phases() == [
        ("imports", 500.0, 502.5),
        ("configuration", 502.5, 503.0),
        ("data", 503.0, 507.0),
        ("network and method", 507.0, 508.0),
    ]


@pytest.mark.parametrize("age", [-5.0, 3600.0])
def test_process_of_an_impossible_age_counts_from_the_command(age: float, clock: SimpleNamespace):
    clock.now = age
    found = startup.Startup(whole_process=True)
    clock.now += 2.0
    assert found.end() == 2.0


def test_process_of_another_command_counts_from_it(clock: SimpleNamespace):
    clock.now = 3.0
    found = startup.Startup(began=501.0)
    assert (found.began, found.end()) == (501.0, 2.0)


def test_slow_imports_are_part_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dispatch = start._import_dispatch()
    monkeypatch.setattr(start, "_import_dispatch", lambda: time.sleep(0.5) or dispatch)
    given = ["algorithm=sgd", "model=linear", "dataset.limit_train=32", "logger=none", "run.epochs=1"]
    assert main.main([*given, f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["start_seconds"] > 0.5 > summary["wall_seconds"]


def test_start_is_counted_from_the_command(tmp_path: Path):
    state, least = dict[str, Any](), 0
    # The starts of all processes that worked at the run add up; a checkpoint from before they were counted has none.
    for seconds, before in ((30, 0), (10, 30), (20, 0)):
        startup.begin(began=time.monotonic() - seconds)
        run = RunWriter(tmp_path, {}, epochs=1, virtual=True)
        run.start({}, resumed={key: state[key] for key in state if before or key != "start_seconds"} or None)
        state, least = run.state_dict(), seconds + before
        run.finish("interrupted")
        summary = read_summary(tmp_path)
        assert least < summary["start_seconds"] < least + 5
        assert summary["wall_seconds"] < 5
