"""What a sweep says of its jobs on the terminal."""

import json
from pathlib import Path

import pytest

from runner.sweeps.job import Job, PlannedJob, announce_job, print_table, report_failure
from tests.trial import compose


def test_table_shows_what_varies(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, text in (("0", '{"status": "diverged", "final_test_error": 12.345}'), ("1", '{"status": "running"}')):
        (tmp_path / number).mkdir()
        (tmp_path / number / "summary.json").write_text(text)
    common = "run.epochs=1"
    jobs = [
        Job(0, ("seed=0", common), tmp_path / "0", 0),
        Job(1, ("seed=1", common), tmp_path / "1", -9),
        Job(2, ("seed=2", common), tmp_path / "2", 2),
    ]
    print_table([*jobs, Job(3, ("seed=3", common), tmp_path / "3", 0)], Path("outputs/x"))
    out = capsys.readouterr().out
    assert out.count("failed") == 1
    [answered] = [line for line in out.splitlines() if "seed=3" in line]
    assert [cell.strip() for cell in answered.split("│")[1:-1]] == ["3", "seed=3", "-", "-", "-", "-"]
    assert "outputs/x" in out
    assert "diverged" in out
    assert "12.35" in out or "12.34" in out
    assert "running, signal SIGKILL" in out
    assert "failed, exit code 2" in out
    assert "seed=2" in out
    assert common not in out


def test_table_has_the_validation_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, lowest in ((0, 12.5), (1, None)):
        (tmp_path / str(number)).mkdir()
        own = {"best_validation_error": lowest, "test_error_at_best_validation": 13.75, "best_test_error": 1.0}
        (tmp_path / str(number) / "summary.json").write_text(json.dumps({"final_test_error": 14.0, **own}))
    print_table([Job(number, (f"seed={number}",), tmp_path / str(number), 0) for number in (0, 1)], tmp_path)
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if "seed=" in line
    ]
    assert [row[3:] for row in cells] == [["14.00", "12.50", "13.75", "-"], ["14.00", "-", "13.75", "-"]]


def table_rows(out: str) -> list[list[str]]:
    """The cells of a table's lines, its head first."""
    lines = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in lines]


TIMED = {
    "timing_only": True,
    "virtual_samples_per_second": 12345.6,
    "epoch_seconds": 0.14561,
    "staleness_mean": 6.985,
    "staleness_max": 13,
    "seconds": 1.5,
}


def test_table_of_the_clock_alone_has_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    jobs = []
    for number, summary in enumerate((TIMED, {"status": "failed"}, {"final_test_error": 14.0})):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "summary.json").write_text(json.dumps(summary))
        jobs.append(Job(number, (f"cluster.workers={number}",), tmp_path / str(number), 0))
    print_table(jobs[:2], tmp_path)
    head, timed, failed = table_rows(capsys.readouterr().out)
    assert head[3:] == ["virtual s an epoch", "samples / virtual s", "staleness", "max", "seconds"]
    assert (timed[3:], failed[3:]) == (["0.1456", "12,346", "6.985", "13", "1.50"], ["-"] * 5)
    print_table(jobs, tmp_path)
    # A sweep over run.timing_only has both.
    out = capsys.readouterr().out
    assert "12,346" in out
    assert "14.00" in out


def test_table_without_errors_has_the_suboptimality(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "summary.json").write_text(json.dumps({"suboptimality": 3.25e-9, "final_train_loss": 1.0}))
    print_table([Job(0, (), tmp_path, 0)], tmp_path)
    head, row = table_rows(capsys.readouterr().out)
    assert (head[3:], row[3:]) == (["suboptimality", "seconds"], ["3.25e-09", "-"])


def test_brackets_are_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "summary.json").write_text("{}")
    print_table(
        [Job(0, ("run.diagnostics=[largest_rate]",), tmp_path / "0", 0), Job(1, (), tmp_path / "1", 0)], tmp_path
    )
    announce_job(PlannedJob(0, ("run.diagnostics=[variance_factor]",), tmp_path, ()), 2)
    out = capsys.readouterr().out
    assert "[largest_rate]" in out
    assert "[variance_factor]" in out


@pytest.mark.parametrize(("code", "ending"), [(2, "exit code 2"), (-9, "signal SIGKILL")])
def test_failed_job_is_named(code: int, ending: str, capsys: pytest.CaptureFixture[str]):
    report_failure(Job(3, ("seed=3",), Path("a"), 0))
    assert capsys.readouterr().err == "", "a job that did not fail is not named"
    report_failure(Job(3, ("seed=3",), Path("a"), code))
    assert capsys.readouterr().err == f"dcrun: job 3 (seed=3) failed with {ending}\n"


def test_failed_job_shows_the_end_of_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "3.txt"
    output.write_text("a\nb\nc\ndcrun: no luck\n")
    report_failure(Job(3, ("seed=3",), tmp_path / "3", 0), output)
    assert capsys.readouterr().err == ""
    report_failure(Job(3, ("seed=3",), tmp_path / "3", 1), output)
    first, *tail = capsys.readouterr().err.splitlines()
    assert first == "dcrun: job 3 (seed=3) failed with exit code 1"
    assert tail == ["    b", "    c", "    dcrun: no luck", f"    (in {output})"]


@pytest.mark.parametrize(
    ("given", "command", "starts"),
    [
        ((), (), False),
        ((), ("run.compute_processes=auto",), True),
        (("run.compute_processes=2",), (), True),
        (("cluster=processes",), (), True),
    ],
)
def test_job_knows_whether_it_starts_processes(given: tuple[str, ...], command: tuple[str, ...], starts: bool):
    config = compose("algorithm=asgd", "run.compute_processes=1", *given)
    assert PlannedJob(0, (), Path("0"), command, None, config).starts_processes == starts


def test_finished_job_names_its_folder(capsys: pytest.CaptureFixture[str]):
    announce_job(Job(1, ("seed=1",), Path("outputs/a"), 0), 4)
    out = capsys.readouterr().out
    assert "job 1 (2 of 4): seed=1" in out
    assert "finished before, in outputs/a" in out
