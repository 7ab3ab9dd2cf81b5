from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.report.collect import collect
from runner.report.curves import figures
from runner.report.evidence import measure_exhibit
from runner.report.page import table
from runner.report.published import Cell, Claim, Exhibit

MakeRun = Callable[..., Path]

TABLE = Exhibit(
    paper="A paper", folder="paper", name="table1", title="Test error", source="table 1", kind="table",
    metric="final_test_error", match={"model": "resnet20", "dataset": "cifar10"},
    setting={"run.epochs": 160, "dataset.limit_train": None, "schedule.lr": 0.5},
    rows=["M=4", "M=8"], columns=["ASGD", "DC"],
    cells=[
        Cell("M=4", "ASGD", {"workers": 4, "algorithm": "asgd"}, 9.0),
        Cell("M=4", "DC", {"workers": 4, "algorithm": "dc_asgd_a", "algorithm.lambda0": 2}, 8.0),
        Cell("M=8", "ASGD", {"workers": 8, "algorithm": "asgd"}, None),
    ],
    claims=[Claim("final_test_error[DC, M=4] < final_test_error[ASGD, M=4]", "table 1")],
)  # fmt: skip


def dc(make_run: MakeRun, name: str, errors: list[float], **kwargs: object) -> None:
    make_run(name, errors, algorithm="dc_asgd_a", config={"algorithm.lambda0": 2.0}, **kwargs)


def test_cells_hold_mean_and_spread(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, (plain, compensated) in enumerate([(12.0, 10.0), (13.0, 11.1), (14.0, 11.9)]):
        make_run(f"a{seed}", [50.0, plain], seed=seed)
        dc(make_run, f"b{seed}", [50.0, compensated], seed=seed)
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    cell = block.cells["ASGD, M=4"]
    assert (cell.mean, cell.spread, cell.difference) == (13.0, 1.0, 4.0)
    assert "ASGD, M=8" not in block.cells
    assert block.seeds == [0, 1, 2]
    assert [verdict.word for verdict in block.verdicts] == ["holds"]
    assert block.deviations == ["run.epochs=2 instead of 160", "dataset.limit_train=1000 instead of null"]
    assert block.orders() == ["M=4, best first: DC, ASGD; the paper's order"]


def test_another_order_than_the_papers_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [12.0])
    dc(make_run, "b", [13.0])
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert block.orders() == ["M=4, best first: ASGD, DC; the paper's order is DC, ASGD"]


def test_equal_cells_have_no_order(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [90.0])
    dc(make_run, "b", [90.0])
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert block.orders() == ["M=4, best first: ASGD = DC; the paper's order is DC, ASGD"]


def test_settings_are_not_mixed(make_run: MakeRun, tmp_path: Path) -> None:
    for name, config in (("short", {}), ("long", {"run.epochs": 160.0}), ("quick", {"scale": "quick"})):
        make_run(f"{name}/a", [12.0], config=config)
        make_run(f"{name}/b", [13.0], workers=8, config=config)
    blocks = measure_exhibit(TABLE, collect([tmp_path]))
    assert len(blocks) == 3
    assert all(set(block.cells) == {"ASGD, M=4", "ASGD, M=8"} for block in blocks)
    assert sorted(block.scale or "" for block in blocks) == ["", "", "quick"]


def test_place_and_device_are_not_settings(make_run: MakeRun, tmp_path: Path) -> None:
    here = {"dataset.root": "/here", "run.device": "cuda", "run.threads": 1, "run.compute_processes": 1}
    there = {"dataset.root": "/there", "run.device": "cpu", "run.threads": 2, "run.compute_processes": "auto"}
    make_run("a", [12.0], config=here)
    make_run("b", [13.0], workers=8, config=there)
    assert len(measure_exhibit(TABLE, collect([tmp_path]))) == 1


def test_one_of_several_settings_of_the_paper_is_no_deviation(make_run: MakeRun, tmp_path: Path) -> None:
    for name, workers, lr in (("a", 4, 0.5), ("b", 8, 0.1)):
        make_run(name, [12.0], workers=workers, config={"schedule.lr": lr})
    exhibit = replace(TABLE, tuned=["schedule.lr"], setting={"schedule.lr": {"any": [0.5, 0.2]}})
    (block,) = measure_exhibit(exhibit, collect([tmp_path]))
    assert block.deviations == ["schedule.lr=0.1 instead of 0.5 or 0.2 (ASGD, M=8)"]


def test_runs_of_other_settings_are_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [12.0], model="resnet8")
    make_run("b", [12.0], algorithm="dc_asgd_a", config={"algorithm.lambda0": 5.0})
    make_run("c", [12.0])
    assert measure_exhibit(TABLE, collect([tmp_path])) == []
    make_run("d", [12.0], workers=8)
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert sorted(run.name for run in block.runs) == ["runs/c", "runs/d"]


def test_ended_run_of_a_seed_counts(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a-ended", [12.0])
    make_run("b-stopped", [30.0, 20.0, 10.0], status="interrupted", config={"run.epochs": 1.0})
    make_run("c", [12.0], workers=8)
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert block.cells["ASGD, M=4"].values == {0: 12.0}


@pytest.mark.parametrize(
    ("paper", "starts", "counted"),
    [
        ({"algorithm.start": "zero"}, ("zero", "skip"), "zero"),
        ({"algorithm.start": "zero"}, ("skip", "zero"), "zero"),
        # The paper says nothing: the later runs count.
        ({}, ("zero", "skip"), "skip"),
        ({}, ("skip", "zero"), "zero"),
    ],
)
def test_methods_own_keys_keep_runs_apart(
    make_run: MakeRun, tmp_path: Path, paper: dict[str, str], starts: tuple[str, str], counted: str
) -> None:
    errors = {"zero": 10.0, "skip": 20.0}
    for number, start in enumerate(starts):
        for seed in (0, 1):
            config = {"algorithm.lambda0": 2.0, "algorithm.start": start}
            make_run(f"{number}/{seed}", [errors[start] + seed], algorithm="dc_asgd_a", seed=seed, config=config)
    make_run("asgd", [12.0])
    (block,) = measure_exhibit(replace(TABLE, setting=paper), collect([tmp_path]))
    assert block.cells["DC, M=4"].values == {0: errors[counted], 1: errors[counted] + 1}
    other = {"zero": "skip", "skip": "zero"}[counted]
    line = f"DC, M=4: algorithm.start={counted}; runs with algorithm.start={other} are left out"
    assert block.tuned == [line]


def test_most_seeds_count_of_equal_settings(make_run: MakeRun, tmp_path: Path) -> None:
    for number, (start, seeds) in enumerate((("zero", (0, 1)), ("skip", (0,)))):
        for seed in seeds:
            config = {"algorithm.lambda0": 2.0, "algorithm.start": start}
            make_run(f"{number}/{seed}", [10.0], algorithm="dc_asgd_a", seed=seed, config=config)
    make_run("asgd", [12.0])
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert block.cells["DC, M=4"].values == {0: 10.0, 1: 10.0}


def test_runs_before_a_key_are_not_apart(make_run: MakeRun, tmp_path: Path) -> None:
    dc(make_run, "old", [10.0], seed=0)
    config = {"algorithm.lambda0": 2.0, "algorithm.start": "zero"}
    make_run("young", [20.0], algorithm="dc_asgd_a", seed=1, config=config)
    make_run("asgd", [12.0])
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert block.cells["DC, M=4"].values == {0: 10.0, 1: 20.0}
    assert block.tuned == []


def test_incomplete_run_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [90.0], status="diverged")
    make_run("b", [12.0], workers=8)
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert "ASGD, M=4: a run is diverged" in block.deviations


def test_a_figure_needs_half_of_its_curves(make_run: MakeRun, tmp_path: Path) -> None:
    figure = replace(TABLE, kind="curves")
    make_run("a", [12.0])
    assert measure_exhibit(figure, collect([tmp_path])) == []
    make_run("b", [12.0], workers=8)
    assert len(measure_exhibit(figure, collect([tmp_path]))) == 1


def test_a_whole_panel_shows_a_figure(make_run: MakeRun, tmp_path: Path) -> None:
    models = ("resnet20", "resnet8", "vgg16_bn")
    methods = ("asgd", "ssgd", "sgd")
    cells = [Cell(model, method, {"model": model, "algorithm": method}, None) for model in models for method in methods]
    figure = replace(
        TABLE, kind="curves", match={}, setting={}, rows=list(models), columns=list(methods), cells=cells, claims=[]
    )
    for method in methods[:2]:
        make_run(method, [50.0, 12.0], algorithm=method)
    assert measure_exhibit(figure, collect([tmp_path])) == []
    make_run("sgd", [50.0, 12.0], algorithm="sgd")
    (block,) = measure_exhibit(figure, collect([tmp_path]))
    assert [panel.title for panel in figures(block)[0].panels] == ["resnet20"]


@pytest.mark.parametrize("errors", [[], [None]])
def test_run_without_a_number(make_run: MakeRun, tmp_path: Path, errors: list[float | None]) -> None:
    make_run("a", errors)
    make_run("b", [12.0], workers=8, config={"run.epochs": float(len(errors))})
    make_run("c", [12.0], algorithm="dc_asgd_a", config={"algorithm.lambda0": 2.0, "run.epochs": float(len(errors))})
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert "ASGD, M=4" not in block.cells or block.cells["ASGD, M=4"].mean is None


def test_unfinished_run_is_not_measured(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(f"a{seed}", [12.0], status="running", seed=seed)
        dc(make_run, f"b{seed}", [10.0], seed=seed)
    (block,) = measure_exhibit(TABLE, collect([tmp_path]))
    assert block.cells["ASGD, M=4"].mean is None
    assert [verdict.word for verdict in block.verdicts] == ["not measured"]
    assert "ASGD, M=4: a run is running" in block.deviations


REACHED = replace(
    TABLE, metric="epochs_to_target", claims=[Claim("epochs_to_target[ASGD, M=4] < epochs_to_target[DC, M=4]", "")]
)


def reach(make_run: MakeRun, name: str, passes: float | None, **kwargs: object) -> None:
    make_run(name, [50.0], summary={"epochs_to_target": passes}, **kwargs)


def test_seeds_without_a_value_leave_claims_undecided(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, passes in enumerate((3.0, None, None)):
        reach(make_run, f"a{seed}", passes, seed=seed)
        config = {"algorithm.lambda0": 2.0}
        reach(make_run, f"b{seed}", 5.0 + seed, seed=seed, algorithm="dc_asgd_a", config=config)
        reach(make_run, f"c{seed}", None, seed=seed, workers=8)
    (block,) = measure_exhibit(REACHED, collect([tmp_path]))
    assert [[cell and cell["measured"] for cell in row["cells"]] for row in table(block)["rows"]] == [
        ["3 (1 of 3 seeds)", "6 ± 1"],
        ["not reached", None],
    ]
    assert "ASGD, M=4: no epochs_to_target of seeds 1, 2" in block.deviations
    assert not any("seed" in line for line in block.deviations if not line.startswith("ASGD, M=4"))
    (verdict,) = block.verdicts
    assert (verdict.word, verdict.because) == ("undecided", "no epochs_to_target of seeds 1, 2 of ASGD, M=4")
    assert block.orders() == []


def test_unfinished_run_lacks_nothing_yet(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, status in enumerate(("completed", "completed", "running")):
        reach(make_run, f"a{seed}", None if status == "running" else 3.0, seed=seed, status=status)
        config = {"algorithm.lambda0": 2.0}
        reach(make_run, f"b{seed}", 5.0, seed=seed, algorithm="dc_asgd_a", config=config)
    (block,) = measure_exhibit(REACHED, collect([tmp_path]))
    assert table(block)["rows"][0]["cells"][0]["measured"] == "3 ± 0"
    assert [verdict.word for verdict in block.verdicts] == ["holds"]


@pytest.mark.parametrize(
    ("low", "high", "best"),
    [
        ((3.0, None), (6.0, 7.0), "0.5"),  # one seed that was quick is no better than two that got there
        ((3.0, None), (None, None), "0.1"),
        ((3.0, 4.0), (6.0, 7.0), "0.1"),
    ],
)
def test_tuned_value_with_fewer_gaps_wins(
    make_run: MakeRun, tmp_path: Path, low: tuple[float | None, ...], high: tuple[float | None, ...], best: str
) -> None:
    for lr, reached in ((0.1, low), (0.5, high)):
        for seed, passes in enumerate(reached):
            reach(make_run, f"a{lr}-{seed}", passes, seed=seed, config={"schedule.lr": lr})
            reach(make_run, f"b{lr}-{seed}", 9.0, seed=seed, workers=8, config={"schedule.lr": lr})
    # Of runs that still go on, what they have so far is no rival.
    reach(make_run, "c", 1.0, status="running", config={"schedule.lr": 0.7})
    (block,) = measure_exhibit(replace(REACHED, tuned=["schedule.lr"]), collect([tmp_path]))
    assert f"ASGD, M=4: schedule.lr={best}, the best of 3" in block.tuned


def test_tuned_value_goes_by_validation(make_run: MakeRun, tmp_path: Path) -> None:
    for lr, error in ((0.1, 10.0), (0.5, 20.0)):
        config = {"schedule.lr": lr, "dataset.validation": 500}
        for workers in (4, 8):
            own = {"final_validation_error": 50.0 - error}
            make_run(f"{lr}-{workers}", [error], workers=workers, config=config, summary=own)
    (block,) = measure_exhibit(replace(TABLE, tuned=["schedule.lr"]), collect([tmp_path]))
    assert "ASGD, M=4: schedule.lr=0.5, the best of 2 by validation error, %" in block.tuned
    assert block.cells["ASGD, M=4"].mean == 20.0


def test_whole_row_of_a_large_table(make_run: MakeRun, tmp_path: Path) -> None:
    rows, methods = [f"M={2**k}" for k in range(6)], ["asgd", "ssgd", "dc_asgd_a"]
    cells = [Cell(row, m, {"workers": int(row[2:]), "algorithm": m}, None) for row in rows for m in methods]
    exhibit = replace(TABLE, rows=rows, columns=methods, cells=cells, claims=[])
    for name in methods[:2]:
        make_run(name, [50.0], algorithm=name)
    assert measure_exhibit(exhibit, collect([tmp_path])) == []
    make_run("last", [50.0], algorithm=methods[2])
    (block,) = measure_exhibit(exhibit, collect([tmp_path]))
    assert len(block.cells) == 3
    assert measure_exhibit(replace(exhibit, kind="layers"), collect([tmp_path])) == []


def test_the_highest_accuracy_is_best(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [12.0])
    dc(make_run, "b", [13.0])
    cells = [replace(cell, published=100 - cell.published if cell.published else None) for cell in TABLE.cells]
    exhibit = replace(TABLE, metric="final_accuracy", cells=cells)
    (block,) = measure_exhibit(exhibit, collect([tmp_path]))
    assert block.orders() == ["M=4, best first: ASGD, DC; the paper's order is DC, ASGD"]
    exhibit = replace(exhibit, cells=[replace(cell, published=None) for cell in cells])
    (block,) = measure_exhibit(exhibit, collect([tmp_path]))
    assert block.orders() == ["best cell: ASGD, M=4"]


@pytest.mark.parametrize(("rate", "deviations"), [(0.1 * 3, []), (0.3001, ["schedule.lr=0.3001 instead of 0.3"])])
def test_settings_equal_to_rounding_are_one(
    make_run: MakeRun, tmp_path: Path, rate: float, deviations: list[str]
) -> None:
    make_run("a", [12.0], config={"schedule.lr": rate})
    make_run("b", [13.0], workers=8, config={"schedule.lr": rate})
    (block,) = measure_exhibit(replace(TABLE, setting={"schedule.lr": 0.3}), collect([tmp_path]))
    assert block.deviations == deviations


def test_methods_without_a_column_join_where_others_may(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [12.0])
    make_run("b", [13.0], workers=8)
    for workers in (8, 16):
        make_run(f"own{workers}", [11.0], algorithm="drop_stale", workers=workers)
    runs = collect([tmp_path])
    (block,) = measure_exhibit(TABLE, runs)
    assert "drop_stale" not in table(block)["columns"], "a paper's table has its own methods alone"
    (block,) = measure_exhibit(replace(TABLE, others="table1_own"), runs)
    shown = table(block)
    assert shown["columns"] == ["ASGD", "DC", "drop_stale"]
    assert [[cell and cell["measured"] for cell in row["cells"]] for row in shown["rows"]] == [
        ["12.00", "–", None],
        ["13.00", None, "11.00"],
    ]
    assert block.orders() == ["M=8, lowest first: drop_stale, ASGD"]
