"""Which runs belong together: those that differ in nothing that can change a result but the seed."""

from collections.abc import Callable
from pathlib import Path

from runner.report.collect import collect
from runner.report.run import Run
from runner.report.settings import averaged, by_seed, differing, label, one_per_seed, setting, shown

MakeRun = Callable[..., Path]


def runs(tmp_path: Path) -> list[Run]:
    return collect([tmp_path / "runs"])


def test_seeds_of_one_setting_are_grouped(make_run: MakeRun, tmp_path: Path):
    make_run("a", [40.0], seed=0)
    make_run("b", [41.0], seed=1, config={"run.threads": 2, "run.device": "cuda:0", "logger.mode": "online"})
    make_run("c", [42.0], seed=0, config={"schedule.lr": 0.25})
    make_run("d", [43.0], seed=0, workers=8)
    groups = [[run.name for run in group] for group in by_seed(runs(tmp_path))]
    assert groups == [["a", "b"], ["c"], ["d"]], "threads, device and logger cannot change a result"
    assert [len(group) for group in by_seed(runs(tmp_path), apart=["schedule.lr"])] == [3, 1]


def test_settings_that_differ_are_named(make_run: MakeRun, tmp_path: Path):
    make_run("a", [40.0])
    make_run("b", [41.0], seed=1, config={"schedule.lr": 0.25, "algorithm.momentum": 0.9})
    assert sorted(differing(runs(tmp_path))) == ["algorithm.momentum", "schedule.lr"]
    assert "dataset.root" not in setting(runs(tmp_path)[0]), "where data lie differs between machines"


def test_runs_from_before_the_validation_split_have_none(make_run: MakeRun, tmp_path: Path):
    make_run("a", [40.0], seed=0)
    make_run("b", [41.0], seed=1, config={"dataset.validation": None})
    make_run("c", [42.0], seed=0, config={"dataset.validation": 0.1})
    assert [[run.name for run in group] for group in by_seed(runs(tmp_path))] == [["a", "b"], ["c"]]
    assert differing(runs(tmp_path)) == ["dataset.validation"]


def test_later_and_longer_runs_count(make_run: MakeRun, tmp_path: Path):
    make_run("a", [50.0, 45.0, 41.0], seed=0, status="interrupted")
    make_run("b", [50.0, 45.0], seed=0)
    make_run("c", [50.0, 44.0], seed=0)
    make_run("d", [50.0], seed=1, status="interrupted")
    assert [run.name for run in one_per_seed(runs(tmp_path))] == ["c", "d"], "ended before longer, later before earlier"
    assert [run.name for run in averaged(runs(tmp_path))] == ["c"], "a mean is of ended runs, if any has ended"


def test_labels_tell_runs_apart(make_run: MakeRun, tmp_path: Path):
    make_run("a", [40.0], workers=8, config={"schedule.lr": 0.25, "algorithm.momentum": 0.9})
    (run,) = runs(tmp_path)
    assert label(run, []) == "asgd M=8"
    assert label(run, ["schedule.lr", "algorithm.momentum", "model"]) == "asgd M=8 momentum=0.9 lr=0.25 resnet20"


def test_values_are_shown_as_typed():
    assert [shown(value) for value in (None, True, 0.1, 1e-5, 3, [1, None], "a")] == [
        "null",
        "true",
        "0.1",
        "1e-05",
        "3",
        "[1,null]",
        "a",
    ]
