import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report import live_jobs
from runner.report.live_jobs import LiveJobs
from runner.run_folder import folders
from runner.run_folder.sweep_jobs import JOBS, NotedJob, note

MakeRun = Callable[..., Path]


def test_states_are_those_of_now(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [60.0, 30.0])
    make_run("b", [60.0], seed=1, status="running", config={"run.epochs": 4.0})
    going = make_run("c", [60.0, 50.0], seed=2, status="running", config={"run.epochs": 4.0})
    (make_run("d", [], seed=3) / "summary.json").unlink()
    with folders.run_lock(going):
        # The lock is this process's, which asks through a descriptor of its own.
        _, jobs = LiveJobs([tmp_path / "runs"]).look()
    assert [(job["name"], job["state"], job["epoch"], job["epochs"], job["error"]) for job in jobs] == [
        ("a", "completed", 2.0, 2.0, 30.0),
        ("b", "stopped", 1.0, 4.0, 60.0),
        ("c", "running", 2.0, 4.0, 50.0),
        ("d", "stopped", None, 0.0, None),
    ]
    assert [job["label"] for job in jobs][2] == "asgd M=4 epochs=4 seed=2"


def test_time_left_goes_by_what_was_made(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of eight passes took 20 seconds; five seconds have gone by since."""
    folder = make_run("a", [60.0, 50.0], status="running", config={"run.epochs": 8.0})
    now = time.time()
    os.utime(folder / ".hydra" / "config.yaml", (now - 25, now - 25))
    os.utime(folder / "metrics.jsonl", (now - 5, now - 5))
    monkeypatch.setattr(folders, "is_locked", lambda place: True)
    monkeypatch.setattr(time, "time", lambda: now)
    (job,) = LiveJobs([tmp_path / "runs"]).look()[1]
    assert job["left"] == pytest.approx(55.0, abs=0.1)


def test_what_has_not_changed_is_not_read_again(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = live_jobs.read
    monkeypatch.setattr(live_jobs, "read", lambda folder, name: read.append(name) or real(folder, name))
    make_run("a", [60.0])
    folder = make_run("b", [60.0], seed=1, status="running")
    jobs = LiveJobs([tmp_path / "runs"])
    first, _ = jobs.look()
    assert jobs.look()[0] == first
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2.0, "test_error": 40.0}) + "\n")
    second, found = jobs.look()
    assert second != first
    assert found[1]["error"] == 40.0
    assert read == ["a", "b", "b"]


def test_jobs_without_a_folder_are_those_of_their_sweep(make_run: MakeRun, tmp_path: Path) -> None:
    sweep = make_run("sweep/0", [60.0], status="running", config={"run.epochs": 4.0}).parent
    crashed = make_run("sweep/1", [60.0], seed=1, status="running", config={"run.epochs": 4.0})

    def noted(number: int, state: str, code: int | None = None) -> NotedJob:
        return NotedJob(number, f"seed={number}", sweep / str(number), state, code)

    note(sweep, [noted(number, "waiting") for number in range(9)])
    # A sweep that is begun again in its folder has other jobs.
    note(sweep, [noted(number, "waiting") for number in range(5)], anew=True)
    note(sweep, [noted(0, "started"), noted(1, "started"), noted(2, "started")])
    note(sweep, [noted(1, "ended", 1), noted(2, "ended", 2), noted(3, "started")])
    watched = LiveJobs([tmp_path / "runs"])
    with folders.run_lock(sweep), folders.run_lock(sweep / "0"):
        _, jobs = watched.look()
    assert [(job["name"], job["state"]) for job in jobs] == [
        ("sweep/0", "running"),
        ("sweep/1", "failed"),
        ("sweep/2", "failed"),
        ("sweep/3", "starting"),
        ("sweep/4", "waiting"),
    ]
    assert [job["label"] for job in jobs[2:]] == ["seed=2", "seed=3", "seed=4"]
    # Once nobody runs the sweep any more, nothing waits.
    assert [job["state"] for job in watched.look()[1]] == ["stopped", "failed", "failed", "stopped", "not run"]
    assert [job["name"] for job in LiveJobs([sweep]).look()[1]] == ["0", "1", "2", "3", "4"]
    assert crashed.exists()
    (sweep / JOBS).write_text('{"number": 1}\nnonsense\n')
    assert [job["state"] for job in watched.look()[1]] == ["stopped", "stopped"], "nobody says that it crashed"
