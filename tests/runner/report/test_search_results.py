from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from runner.report import published
from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.page import table
from runner.report.ranking import rankings
from runner.report.search_results import Tried, among, searches

MakeRun = Callable[..., Path]
METRIC = "best_test_error"


def tried(points: Mapping[tuple[float, float], float], apart: str = "") -> list[Tried]:
    return [Tried(f"{x:g}, {y:g}", {"x": x, "y": y}, apart, value) for (x, y), value in points.items()]


def bowl(x: float, y: float) -> float:
    return (x - 2) ** 2 + (y - 2) ** 2


def test_the_next_setting_in_each_direction() -> None:
    grid = {(x, y): bowl(x, y) for x in (0.0, 1.0, 2.0, 4.0, 8.0) for y in (1.0, 2.0, 3.0)}
    (search,) = searches(tried(grid), METRIC)
    assert (search.best.name, search.tried) == ("2, 2", 15)
    assert [one.name for one in search.neighbours] == ["1, 2", "4, 2", "2, 1", "2, 3"]
    assert search.edges == []


def test_an_edge_is_told() -> None:
    grid = {(x, y): bowl(x, y) for x in (0.0, 1.0) for y in (2.0, 3.0)}
    (search,) = searches(tried(grid), METRIC)
    assert search.edges == ["x=1 is the largest", "y=2 is the smallest"]
    assert search.lines()[0] == "best of 4: 1, 2 at 1.00"
    assert "at the edge of what was tried: x=1 is the largest, y=2 is the smallest" in search.lines()


def test_random_settings_have_the_nearest_as_neighbours() -> None:
    points = [(1.0, 10.0), (1.1, 11.0), (1.2, 9.0), (1.3, 12.0), (1.4, 8.0), (9.0, 900.0)]
    (search,) = searches(tried({point: number for number, point in enumerate(points)}), METRIC)
    assert [one.name for one in search.neighbours] == ["1.1, 11", "1.2, 9", "1.3, 12", "1.4, 8"]


def test_more_is_better_of_accuracies() -> None:
    (search,) = searches(tried({(1, 1): 0.5, (2, 1): 0.9}), "best_accuracy")
    assert search.best.name == "2, 1"
    assert search.lines()[1] == "beside it: 1, 1 0.5000 (−0.4000)"


def test_other_settings_are_another_search() -> None:
    found = searches([*tried({(1, 1): 3, (2, 1): 2}, "a"), *tried({(1, 1): 1, (2, 1): 9}, "b")], METRIC)
    assert [search.best.name for search in found] == ["2, 1", "1, 1"]


def test_searches_differ_in_numbers_alone(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, error in ((0.1, 30.0), (0.2, 20.0), (0.4, 25.0)):
        make_run(f"a{lr}", [error], config={"schedule.lr": lr})
        make_run(f"b{lr}", [error], config={"run.batch_size": int(lr * 100)})
        make_run(f"c{lr}", [error], config={"schedule.lr": lr}, workers=8, status="running")
    make_run("d", [1.0], config={"schedule.lr": 0.8}, workers=16)
    ((name, search),) = among(collect([tmp_path]))
    assert name == "asgd M=4, resnet20 on cifar10"
    assert (search.best.name, search.tried) == ("schedule.lr=0.2", 3)


def validated(error: float, tested: float) -> dict[str, float]:
    """What a summary says of a validation split."""
    own = {"best_validation_error": error, "final_validation_error": error}
    return {**own, "test_error_at_best_validation": tested}


def test_search_goes_by_validation_if_there_is_one(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, error in ((0.1, 30.0), (0.2, 20.0), (0.4, 25.0)):
        for seed in (0, 1):
            config = {"schedule.lr": lr, "dataset.validation": 0.1}
            own = validated(60 - error, error + seed)
            make_run(f"a{lr}/{seed}", [error], seed=seed, config=config, summary=own)
        make_run(f"b{lr}", [error], config={"schedule.lr": lr})
    found = [search for _, search in among(collect([tmp_path]))]
    by_metric = {search.metric: search for search in found}
    assert by_metric["best_test_error"].best.name == "schedule.lr=0.2"
    assert by_metric["best_test_error"].lines()[0] == "best of 3: schedule.lr=0.2 at 20.00"
    first, chosen, *_ = by_metric["best_validation_error"].lines()
    assert first == "best of 3 by best validation error: schedule.lr=0.1 at 30.00 ± 0.00"
    assert chosen == "its test error at the best validation error: 30.50 ± 0.71"


def test_papers_grid_goes_by_validation(make_run: MakeRun, tmp_path: Path) -> None:
    exhibit = next(one for one in published.load() if one.id == "dc_asgd_icml2017/lambda0_lr")
    for lam in (0.5, 2.0):
        for lr in (0.25, 0.5, 1.0):
            config = {"algorithm.lambda0": lam, "algorithm.m": 0.95, "schedule.lr": lr, "dataset.validation": 0.1}
            own = validated(12 - lr - lam, 8 + lr + lam)
            make_run(f"{lam}-{lr}", [8 + lr + lam], algorithm="dc_asgd_a", workers=8, config=config, summary=own)
    (block,) = measure_exhibit(replace(exhibit, claims=[]), collect([tmp_path]))
    assert block.orders()[:2] == ["best of 6 by validation error: -a, λ0=2, lr=1 at 9.00", "its test error: 11.00"]
    assert block.cells["-a, λ0=2, lr=1"].mean == 11.0, "the table shows the exhibit's own metric"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_papers_grid_marks_its_best_cell(make_run: MakeRun, tmp_path: Path, seeds: int) -> None:
    exhibit = next(one for one in published.load() if one.id == "dc_asgd_icml2017/lambda0_lr")
    assert exhibit.kind == "grid"
    for lam in (0.5, 2.0, 8.0):
        for lr in (0.25, 0.5, 1.0):
            for seed in range(seeds):
                config = {"algorithm.lambda0": lam, "algorithm.m": 0.95, "schedule.lr": lr}
                error = 10 + abs(lam - 2) + abs(lr - 0.5) + seed
                make_run(f"{lam}-{lr}-{seed}", [error], algorithm="dc_asgd_a", workers=8, seed=seed, config=config)
    (block,) = measure_exhibit(replace(exhibit, claims=[]), collect([tmp_path]))
    (search,) = block.searches()
    assert search.best.name == "-a, λ0=2, lr=0.5"
    assert {one.name for one in search.neighbours} == {
        "-a, λ0=0.5, lr=0.5",
        "-a, λ0=8, lr=0.5",
        "-a, λ0=2, lr=0.25",
        "-a, λ0=2, lr=1",
    }
    assert block.orders()[0].startswith("best of 9: -a, λ0=2, lr=0.5 at 10.")
    cells = [cell for row in table(block)["rows"] for cell in row["cells"] if cell["best"]]
    assert [cell["published"] for cell in cells] == ["8.57"]


def test_a_seed_that_was_repeated_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, error in ((0.1, 30.0), (0.2, 20.0), (0.4, 25.0)):
        for name, seed in (("a", 0), ("b", 1), ("c", 1)):
            make_run(f"{name}{lr}", [error + seed], config={"schedule.lr": lr}, seed=seed)
    ((_, search),) = among(collect([tmp_path]))
    assert search.lines()[0] == "best of 3: schedule.lr=0.2 at 20.50 ± 0.71"


def test_setting_with_missing_seeds_is_not_best(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, errors in ((0.1, (30.0, 31.0)), (0.2, (20.0, None)), (0.4, (25.0, 26.0))):
        for seed, error in enumerate(errors):
            make_run(f"{lr}/{seed}", [error], config={"schedule.lr": lr}, seed=seed, status="diverged")
    ((_, search),) = among(collect([tmp_path]))
    assert search.lines()[0] == "best of 3: schedule.lr=0.4 at 25.50 ± 0.71"
    assert "schedule.lr=0.2 20.00 (1 of 2 seeds) (−5.50)" in search.lines()[1]


def test_pruned_settings_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, error, status in ((0.1, 30.0, "completed"), (0.2, 20.0, "completed"), (0.4, 5.0, "pruned")):
        make_run(f"{lr}", [error], config={"schedule.lr": lr}, status=status)
    ((_, search),) = among(collect([tmp_path / "runs"]))
    assert (search.best.name, search.tried, search.edges) == ("schedule.lr=0.2", 2, [])
    assert search.lines()[0].startswith("best of 3: schedule.lr=0.2")
    assert search.lines()[-1] == "pruned, 1 settings: schedule.lr=0.4"
    assert [len(row.values) for ranking in rankings(collect([tmp_path / "runs"])) for row in ranking.rows] == [1, 1, 0]


def test_a_search_of_one_survivor_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, status in ((0.1, "pruned"), (0.2, "completed"), (0.4, "pruned")):
        make_run(f"{lr}", [9.0], config={"schedule.lr": lr}, status=status)
    ((_, search),) = among(collect([tmp_path / "runs"]))
    assert (search.best.name, search.pruned) == ("schedule.lr=0.2", ["schedule.lr=0.1", "schedule.lr=0.4"])
