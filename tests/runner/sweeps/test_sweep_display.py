import io
import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from runner.sweeps.job import Job, PlannedJob
from runner.sweeps.sweep_display import SweepDisplay
from tests.trial import compose


def planned(folder: Path, count: int) -> list[PlannedJob]:
    config = compose("run.epochs=4")
    return [PlannedJob(n, (f"seed={n}", "run.epochs=4"), folder / str(n), (), None, config) for n in range(count)]


def evaluated(folder: Path) -> None:
    folder.mkdir()
    path = folder / "metrics.jsonl"
    path.write_text(json.dumps({"epoch": 1.0, "samples": 1000, "test_error": 3.25}) + "\n")
    # Later than the job began, however coarse the clock of the file system is.
    os.utime(path, (time.time() + 1, time.time() + 1))


def display(plans: list[PlannedJob], *, live: bool, height: int = 30) -> tuple[SweepDisplay, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, width=110, height=height, force_terminal=live)
    return SweepDisplay(plans, 2, console, live), text


def test_a_pipe_gets_lines_when_something_happens(tmp_path: Path):
    plans = planned(tmp_path, 3)
    shown, text = display(plans, live=False)
    with shown:
        shown.begin(plans[0])
        shown.show()
        shown.show()
        evaluated(tmp_path / "0")
        shown.show()
        shown.end(Job(0, plans[0].overrides, tmp_path / "0", 1))
        shown.show()
    first, second, third = text.getvalue().splitlines()
    assert first == "1 running, 2 waiting; job 0 at epoch 0.00/4"
    assert second.startswith("1 running, 2 waiting; job 0 at epoch 1.00/4, test error 3.25 %, ")
    assert second.endswith(" left")
    assert third == "2 waiting, 1 failed"


def test_a_terminal_gets_a_table(tmp_path: Path):
    plans = planned(tmp_path, 3)
    shown, text = display(plans, live=True)
    with shown:
        shown.begin(plans[0])
        shown.begin(plans[1])
        evaluated(tmp_path / "0")
        shown.end(Job(1, plans[1].overrides, tmp_path / "1", 0))
        shown.show()
        rows = [line.split() for line in _plain(shown).splitlines()]
    assert ["2", "seed=2", "waiting"] in rows
    [running] = [row for row in rows if row[:2] == ["0", "seed=0"]]
    assert running[2:5] == ["running", "1.00/4", "3.25"]
    assert len(running) == 7, "samples/s and the time left"
    assert "1 running, 1 waiting, 1 done; " in _plain(shown)
    assert "run.epochs=4" not in _plain(shown)
    assert text.getvalue().endswith("\x1b[?25h") or "\x1b[2K" in text.getvalue(), "it is removed at the end"


def test_a_low_terminal_shows_what_runs_and_fails(tmp_path: Path):
    plans = planned(tmp_path, 20)
    shown, _ = display(plans, live=True, height=10)
    shown.begin(plans[17])
    shown.begin(plans[19])
    shown.end(Job(19, plans[19].overrides, tmp_path / "19", 2))
    told = _plain(shown)
    assert [seed for seed in range(20) if f"seed={seed} " in told] == [0, 1, 17, 19]
    assert "16 not shown" in told


@pytest.mark.parametrize("live", [False, True])
def test_jobs_that_were_finished_before_are_done(live: bool, tmp_path: Path):
    job = Job(0, ("seed=0",), tmp_path, 0)
    shown, _ = display([], live=live)
    shown = SweepDisplay([job], 2, shown.console, live)
    shown.end(job)
    assert shown.line() == "1 done"


def _plain(shown: SweepDisplay) -> str:
    text = io.StringIO()
    Console(file=text, width=110).print(shown.table())
    return text.getvalue().replace("│", " ")
