"""What the report says of where its numbers come from, and how to repeat them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.provenance import commands, facts, heading
from runner.report.published import load

MakeRun = Callable[..., Path]


def override(folder: Path, *given: str) -> None:
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(given)), encoding="utf-8")


def test_machine_data_and_code_are_told(make_run: MakeRun, tmp_path: Path):
    make_run("a", [40.0])
    make_run("b", [41.0], seed=1, summary={"clock": "measured", "wall_seconds": 72.0})
    told = dict(line.split(": ", 1) for line in facts(collect([tmp_path / "runs"])))
    assert told["data"] == (
        "cifar10, from 0, 1000 training samples, padding-crop and flip; "
        "cifar10, from 1, 1000 training samples, padding-crop and flip"
    )
    assert told["seconds"] == "virtual, of a simulated cluster; measured, on processes"
    assert told["machine"] == "a processor, 2 cores, 1 threads, fp32"
    assert told["commit"] == "0123456789ab-dirty"
    assert told["torch"] == "2.15.0"
    assert told["time"] == "2 runs, 0.03 hours together"


def test_runs_of_several_seeds_are_one_command(make_run: MakeRun, tmp_path: Path):
    for seed in (1, 0):
        folder = make_run(f"s{seed}", [40.0], seed=seed)
        override(folder, "algorithm=asgd", f"seed={seed}", "hydra.run.dir=x", "run.resume=null", "run.name=a b")
    assert commands(collect([tmp_path / "runs"])) == ["dcrun -m algorithm=asgd 'run.name=a b' seed=0,1"]


def test_cell_of_an_experiment_runs_alone(make_run: MakeRun, tmp_path: Path):
    override(make_run("a", [40.0], seed=3), "experiment=p/table1", "algorithm=asgd", "seed=3")
    assert commands(collect([tmp_path / "runs"])) == [
        "dcrun experiment=p/table1 algorithm=asgd run.resume=null hydra.mode=RUN seed=3"
    ]


@pytest.mark.parametrize(
    ("length", "scale", "told"),
    [
        ("length: ours, ", "paper", "Paper scale, our length"),
        ("", "paper", "Paper scale"),
        ("length: ours, ", "quick", "Quick scale"),
    ],
)
def test_paper_that_names_no_length_has_ours(
    make_run: MakeRun, tmp_path: Path, length: str, scale: str, told: str
) -> None:
    (tmp_path / "p").mkdir()
    exhibit = "{title: t, source: table 1, rows: {r: {}}, columns: {c: {algorithm: asgd}}, values: {r: {c: null}}}"
    text = f"paper: p\nexhibits:\n  table1: {{{length}{exhibit[1:]}\n"
    (tmp_path / "p" / "published.yaml").write_text(text)
    make_run("a", [40.0], config={"scale": scale})
    (block,) = measure_exhibit(load(tmp_path)[0], collect([tmp_path / "runs"]))
    assert heading(block) == f"{told}: 1 effective passes, seed 0"
