"""What the report says of where its numbers come from, and how to repeat them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runner.config.errors import InputError
from runner.report import archive
from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.provenance import check_committed, commands, facts, heading, uncommitted
from runner.report.published import load

MakeRun = Callable[..., Path]


def override(folder: Path, *given: str) -> None:
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(given)), encoding="utf-8")


def test_machine_data_and_code_are_told(make_run: MakeRun, tmp_path: Path):
    dirty = {"git_commit": "0123456789abcdef" * 2 + "-dirty"}
    make_run("a", [40.0], summary=dirty)
    make_run("b", [41.0], seed=1, summary={"clock": "measured", "wall_seconds": 72.0, **dirty})
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


@pytest.mark.parametrize(
    ("commit", "known"),
    [("0" * 40, True), ("0" * 40 + "-dirty", False), (None, False), ("unknown", False), ("", False)],
)
def test_run_of_no_commit_is_told_apart(make_run: MakeRun, tmp_path: Path, commit: str | None, known: bool) -> None:
    make_run("a", [40.0], summary={"git_commit": commit})
    (make_run("broken", [40.0]) / "summary.json").write_text("{")
    assert [run.name for run in uncommitted(collect([tmp_path / "runs"]))] == ([] if known else ["a"])


def test_refusal_names_runs_of_no_commit(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("clean", [40.0])
    check_committed(collect([tmp_path / "runs"]))
    for number in range(5):
        make_run(f"a/unknown{number}", [42.0], seed=number, summary={"git_commit": None})
    archive.write(tmp_path / "a.jsonl", collect([tmp_path / "runs"]))
    with pytest.raises(InputError) as caught:
        check_committed(archive.read(tmp_path / "a.jsonl"))
    named = "a/unknown0, a/unknown1, a/unknown2, and 2 more"
    assert str(caught.value).startswith(f"--results: {tmp_path / 'a.jsonl'}: {named}: the commit is unknown or dirty")
    assert "allowed: runs of a clean checkout" in str(caught.value)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(("seeds", "loop"), [((0, 1), "for seed in 0 1; do {} seed=$seed; done"), ((3,), "{} seed=3")])
def test_command_of_a_single_cell(make_run: MakeRun, tmp_path: Path, seeds: tuple[int, ...], loop: str) -> None:
    given = ["logger.group='x'", "algorithm=ssgd", "cluster.workers=8", "experiment=dasgd_iclr2022/table1"]
    for seed in seeds:
        folder = make_run(f"a{seed}", [50.0], algorithm="ssgd", seed=seed)
        overrides = json.dumps([*given, f"seed={seed}", "run.resume=null"])  # JSON is YAML
        (folder / ".hydra" / "overrides.yaml").write_text(overrides)
    found = commands(collect([tmp_path]))
    assert found == [loop.format(f"dcrun {' '.join(given[1:])} run.resume=null hydra.mode=RUN")]


def test_command_of_a_run_without_seed(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", [50.0])
    for name in ("summary.json", ".hydra/config.yaml"):
        (folder / name).write_text("{}")
    for given in (["algorithm=ssgd"], ["experiment=dasgd_iclr2022/table1"]):
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(given))
        assert "seed" not in commands(collect([tmp_path]))[0]


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
