import re
from collections.abc import Callable
from pathlib import Path

from runner.report.collect import collect
from runner.report.markdown import write
from runner.report.notes import Notes

MakeRun = Callable[..., Path]


def rows(tmp_path: Path) -> list[list[str]]:
    """The rows of the table of runs: name, seeds, status, passes, test error, best, seconds."""
    write(tmp_path / "results.md", tmp_path / "figures", collect([tmp_path / "runs"]), [], Notes(None))
    text = (tmp_path / "results.md").read_text()
    found = [line.strip("| ").split(" | ") for line in re.findall(r"^\| .*$", text, re.M)]
    return [line for line in found if line[0] != "run"]


def test_mean_takes_each_ended_seed_once(make_run: MakeRun, tmp_path: Path) -> None:
    planned = {"run.epochs": 3.0}
    make_run("a", [60.0], status="interrupted", config=planned)
    make_run("b", [60.0, 30.0, 10.0])
    make_run("c", [60.0, 30.0, 12.0], seed=1)
    make_run("d", [60.0, 30.0, 12.0], seed=1)
    ended = ["3", "11.00 ± 1.41", "11.00 ± 1.41", "30.0 ± 0.0 virtual"]
    assert rows(tmp_path) == [["asgd M=4", "0, 1", "completed", *ended]]
    make_run("e", [60.0, 50.0], seed=2, status="interrupted", config=planned)
    assert rows(tmp_path) == [["asgd M=4", "0, 1", "completed, left out: seed 2 interrupted", *ended]]


def test_furthest_run_where_none_ended(make_run: MakeRun, tmp_path: Path) -> None:
    planned = {"run.epochs": 3.0}
    make_run("a", [60.0, 40.0], status="interrupted", config=planned)
    make_run("b", [50.0], status="running", config=planned)
    make_run("c", [50.0, 42.0], seed=1, status="running", config=planned)
    found = ["2", "41.00 ± 1.41", "41.00 ± 1.41", "20.0 ± 0.0 virtual"]
    assert rows(tmp_path) == [["asgd M=4", "0, 1", "interrupted, running", *found]]


def test_validation_has_columns_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    found = {"best_validation_error": 15.0, "test_error_at_best_validation": 22.0}
    make_run("a", [60.0, 20.0], config={"dataset.validation": 0.1}, summary=found)
    assert rows(tmp_path)[0][4:] == ["20.00", "20.00", "15.00", "22.00", "20.0 virtual"]
    text = (tmp_path / "results.md").read_text()
    assert "| best | best validation error | test error then | seconds |" in text
    assert "0.1 of the training samples for validation" in text
    widths = {line.count("|") for line in re.findall(r"^\|.*$", text, re.M)}
    assert len(widths) == 1, "every line of the table has as many cells"


def test_mean_names_its_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, error in enumerate((20.0, None, None)):
        make_run(str(seed), [60.0, error], seed=seed, summary={"best_test_error": 20.0})
    [[*_, error, best, _]] = rows(tmp_path)
    assert (error, best) == ("20.00 (1 of 3 seeds)", "20.00 ± 0.00")


def test_bytes_have_a_column_where_known(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [60.0, 20.0])
    assert rows(tmp_path)[0][-1] == "20.0 virtual", "a run of an earlier version did not count them"
    make_run("b", [60.0, 20.0], algorithm="ssgd", summary={"bytes_sent": 2_500_000})
    assert [row[-1] for row in rows(tmp_path)] == ["–", "2.5 MB"]
