import json
import os
from pathlib import Path

import pytest

from runner.run_folder.live_status import Status
from runner.sweeps.sweep_progress import DONE, FAILED, JobProgress, sweep_left


def write(folder: Path, when: float, *epochs: float) -> None:
    """Write the rows of a run of 100 samples an epoch, the last of them at a time."""
    folder.mkdir(exist_ok=True)
    rows = [{"epoch": epoch, "samples": 100 * epoch, "test_error": 10.0 - epoch} for epoch in epochs]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "metrics.jsonl", (when, when))


def job(number: int, folder: Path, epochs: float = 8.0, begun: float = 1000.0) -> JobProgress:
    progress = JobProgress(number, f"seed={number}", epochs)
    progress.begin(folder, begun)
    return progress


def test_rows_tell_speed_and_time_left(tmp_path: Path):
    one = job(0, tmp_path)
    one.look()
    assert (one.epoch, one.test_error, one.samples_per_second, one.left(1002.0)) == (0.0, None, None, None)
    write(tmp_path, 1010.0, 1.0)
    one.look()
    assert (one.epoch, one.test_error, one.samples_per_second) == (1.0, 9.0, 10.0)
    assert one.left(1010.0) == 70.0
    assert one.left(1014.0) == 66.0, "it works on between two evaluations"
    assert one.left(2000.0) == 0.0
    write(tmp_path, 1014.0, 1.0, 2.0)
    one.look()
    assert one.samples_per_second == 25.0, "the last evaluations count"
    assert one.left(1014.0) == pytest.approx(42.0)


def test_a_job_tells_of_itself_between_evaluations(tmp_path: Path):
    one = job(0, tmp_path)
    one.look(Status(epoch=0.5, samples=50.0, when=1010.0))
    assert (one.epoch, one.samples_per_second, one.left(1010.0)) == (0.5, 5.0, 150.0)
    one.look(Status(epoch=0.75, samples=75.0, when=1011.0))
    assert one.samples_per_second == pytest.approx(0.7 * 5 + 0.3 * 25)
    write(tmp_path, 1010.5, 0.5)
    one.look(Status(epoch=0.75, samples=75.0, when=1011.0))
    assert (one.epoch, one.test_error) == (0.75, 9.5), "the error is that of the evaluation"
    one.look(None)
    assert one.left(1012.0) == pytest.approx(11 / 0.75 * 7.25 - 1)


def test_what_an_earlier_process_did_does_not_count(tmp_path: Path):
    write(tmp_path, 500.0, 1.0, 6.0)
    one = job(0, tmp_path)
    assert (one.epoch, one.left(1000.0)) == (6.0, None)
    write(tmp_path, 1010.0, 1.0, 6.0, 7.0)
    one.look()
    assert one.samples_per_second == 10.0
    assert one.left(1010.0) == 10.0


@pytest.mark.parametrize(
    ("code", "status", "state"), [(0, "completed", DONE), (0, "diverged", "diverged"), (2, "x", FAILED)]
)
def test_ends_are_told_apart(code: int, status: str, state: str, tmp_path: Path):
    (tmp_path / "summary.json").write_text(json.dumps({"status": status}))
    one = job(0, tmp_path)
    one.end(code, 1020.0)
    assert (one.state, one.seconds, one.left(1030.0)) == (state, 20.0, None)


def test_time_left_of_the_whole_sweep(tmp_path: Path):
    waiting = [JobProgress(number, "", 8.0) for number in (3, 4, 5)]
    first, second = job(0, tmp_path / "0"), job(1, tmp_path / "1")
    assert sweep_left([first, second, *waiting], 2, 1000.0) is None, "nothing is known yet"
    write(tmp_path / "0", 1010.0, 1.0)
    first.look()
    # A job takes 80 s: two have 70 left, and three are to come, on two places.
    assert sweep_left([first, second, *waiting], 2, 1010.0) == (70 + 70 + 3 * 80) / 2
    second.end(0, 1040.0)
    assert sweep_left([first, second], 2, 1040.0) == 40.0, "the longest goes on to its end"


def test_a_failed_job_says_nothing_of_the_others(tmp_path: Path):
    failed = job(0, tmp_path)
    failed.end(1, 1001.0)
    assert sweep_left([failed, JobProgress(1, "")], 2, 1001.0) is None
