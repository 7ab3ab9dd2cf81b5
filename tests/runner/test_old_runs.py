"""Run folders that an earlier commit wrote (`old_runs/make.py` says how) are resumed, replayed and reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.cli import dcreport
from tests.trial import dcrun

OLD = Path(__file__).parent / "old_runs"
EXPECTED = json.loads((OLD / "expected.json").read_text())
STOPPED = (
    "dc_asgd_a",
    "dasgd",
    "fr",
    "shared_asysvrg",
    "dis_dfsdca",
    "ssgd_processes",
    "ddg_processes",
    "asysvrg_processes",
)
TRACED = ("asgd_traced", "asysvrg_traced", "dis_dfsdca_traced")
QUICK = ("dc_asgd_a", "ssgd_processes", "asysvrg_traced")


def cases(names: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command line to its end and return the summary in `folder`."""
    process = dcrun(*arguments)
    process.join(240)
    assert process.exitcode == 0
    return json.loads((folder / "summary.json").read_text())


def check_counts(summary: dict[str, Any], name: str) -> None:
    expected = EXPECTED["runs"][name]
    assert summary["status"] == "completed"
    assert [summary[key] for key in ("updates", "samples")] == [expected[key] for key in ("updates", "samples")]


def check_weights(summary: dict[str, Any], name: str) -> None:
    """Compare the bits, where this machine rounds as the one did that the runs were made on."""
    here = {"isa": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    there = {key: EXPECTED["machine"][key] for key in here}
    if here != there:
        pytest.skip(f"all but the bits was checked: the runs were made on {there}, this is {here}")
    for key in ("weights_sha256", "buffers_sha256"):
        assert summary[key] == EXPECTED["runs"][name][key]


@pytest.mark.parametrize("name", cases(STOPPED))
def test_old_checkpoint_ends_as_unbroken(name: str, tmp_path: Path):
    """But for `shared_asysvrg`, whose steps add up in another order since: its bits are those it resumes to now."""
    folder = tmp_path / name
    shutil.copytree(OLD / name, folder)
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    summary = run(folder, f"run.resume={folder}")
    check_counts(summary, name)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) > 3
    check_weights(summary, name)


@pytest.mark.parametrize("name", cases(TRACED))
def test_old_trace_replays_to_same_weights(name: str, tmp_path: Path):
    folder = tmp_path / "replay"
    given = ("cluster=replay", f"cluster.trace={OLD / name}", "logger=none", f"hydra.run.dir={folder}")
    # The runs were made when no finite loss was divergence; that of dis_dfsdca explodes.
    given += ("run.divergence_factor=null",)
    summary = run(folder, *given)
    check_counts(summary, name)
    assert summary["workers"] > 1
    check_weights(summary, name)


def test_dcreport_reads_old_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert dcreport.main([str(OLD), "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert f"{len(EXPECTED['runs'])} runs -> " in told.out
    assert told.err == ""
    table = (tmp_path / "report.md").read_text()
    methods = {name.removesuffix("_traced").removesuffix("_processes") for name in EXPECTED["runs"]}
    assert [method for method in sorted(methods) if method not in table] == []
