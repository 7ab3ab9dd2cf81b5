"""Runs of the clock alone in a report: beside each other, never among those that trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.report import timing_runs
from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.markdown import write
from runner.report.notes import Notes
from runner.report.page import render, searched
from runner.report.published import Cell, Exhibit
from runner.report.run import Run
from tests.page_contents import data_of

MakeRun = Callable[..., Path]
TABLE = Exhibit("Someone", "paper", "table1", "Errors", "table 1", "table", "final_test_error", {}, {},
                ["M=4"], ["asgd"], [Cell("M=4", "asgd", {"workers": 4, "algorithm": "asgd"}, 31.5)], [])  # fmt: skip


@pytest.fixture
def clocks(make_run: MakeRun, tmp_path: Path) -> list[Run]:
    """A sweep over two methods and M, with two seeds of one setting."""
    for algorithm, workers, seed in (
        ("asgd", 4, 0),
        ("asgd", 4, 1),
        ("asgd", 100, 0),
        ("ssgd", 4, 0),
        ("ssgd", 100, 0),
    ):
        pushes = algorithm == "asgd"
        known: dict[str, Any] = {
            "timing_only": True,
            "virtual_samples_per_second": workers * (30.0 + 4 * seed),
            "virtual_gradients_per_second": workers * 1.0,
            "epoch_seconds": 360.0 / workers,
            "staleness_mean": workers - 1.0 if pushes else None,
            "staleness_max": workers + 1 if pushes else None,
            "computing_share": 0.75,
            "transferring_share": 0.25,
            "waiting_share": 0.0,
            "bytes_sent": 2_500_000,
        }
        name = f"{algorithm}-{workers}-{seed}"
        config = {"run.timing_only": True, "run.epochs": float(workers)}
        make_run(name, [None], algorithm=algorithm, workers=workers, seed=seed, summary=known, config=config)
    return collect([tmp_path / "runs"])


def test_rows_are_means_over_seeds(clocks: list[Run]):
    rows = timing_runs.rows(clocks)
    assert len(rows) == 4 and all(len(row) == len(timing_runs.HEAD) for row in rows)
    assert [row[0].split()[:2] for row in rows] == [
        ["asgd", "M=4"],
        ["asgd", "M=100"],
        ["ssgd", "M=4"],
        ["ssgd", "M=100"],
    ]
    assert rows[0][1:] == ["128", "4", "90", "3", "5", "75.0%", "25.0%", "0.0%", "2.5 MB"]
    assert rows[3][4:6] == ["–", "–"]


def test_figures_go_along_the_workers(clocks: list[Run]):
    throughput, staleness = timing_runs.figures(clocks)
    assert throughput.log_x and throughput.log_y and staleness.log_x and staleness.log_y
    assert [(c.name, c.x, c.y) for c in throughput.panels[0].curves] == [
        ("asgd", [4, 100], [128.0, 3000.0]),
        ("ssgd", [4, 100], [120.0, 3000.0]),
    ]
    assert [(c.name, c.y) for c in staleness.panels[0].curves] == [
        ("asgd mean", [3.0, 99.0]),
        ("asgd largest", [5, 101]),
    ]


def test_nothing_is_drawn_along_one_number(clocks: list[Run]):
    assert timing_runs.figures([run for run in clocks if run.number("workers") == 4]) == []


def test_clock_alone_measures_and_ranks_nothing(clocks: list[Run], make_run: MakeRun, tmp_path: Path):
    assert measure_exhibit(TABLE, clocks) == [] == searched(clocks, [])
    make_run("asgd", [60.0, 30.0])
    runs = collect([tmp_path / "runs"])
    (block,) = measure_exhibit(TABLE, runs)
    assert block.cells["asgd, M=4"].mean == 30.0
    data = data_of(render(runs, [], "Title"))
    assert [run["fields"]["name"] for run in data["runs"]] == ["asgd"]
    assert [figure["name"] for figure in data["figures"]] == ["setting-1", "timing-throughput", "timing-staleness"]
    ranked = [[curve["name"] for curve in panel["curves"]] for panel in data["figures"][0]["panels"]]
    assert ranked == [["asgd"], ["asgd"]], "the one that trained, against passes and against seconds"


def test_page_of_clocks_alone_has_no_runs(clocks: list[Run]):
    page = render(clocks, [], "Title")
    assert 'id="clock"' in page
    assert 'id="runs"' not in page


def test_markdown_has_table_and_figures(clocks: list[Run], tmp_path: Path):
    write(tmp_path / "all.md", tmp_path / "figures", clocks, [], Notes(None))
    text = (tmp_path / "all.md").read_text()
    assert "## The clock alone" in text
    assert "| 128 | 4 | 90 | 3 | 5 | 75.0% | 25.0% | 0.0% | 2.5 MB |" in text
    assert (tmp_path / "figures" / "timing-throughput.png").exists()
    assert "## Runs" not in text
