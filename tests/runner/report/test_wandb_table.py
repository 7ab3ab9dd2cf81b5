import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from runner.report import archive
from runner.report.collect import collect
from runner.report.wandb_table import evaluated, write
from runner.run_folder.wandb_run import group_of

MakeRun = Callable[..., Path]


def config(
    mode: str = "offline", group: str | None = None, experiment: str | None = "dc_asgd_icml2017/table1"
) -> DictConfig:
    logger = {"kind": "wandb", "mode": mode, "project": "p", "group": group}
    return OmegaConf.create(
        {"scale": "quick", "logger": logger, "hydra": {"runtime": {"choices": {"experiment": experiment}}}}
    )  # fmt: skip


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    for seed in (0, 1):
        for workers in (4, 8):
            make_run(f"first/{workers}{seed}", [60.0, 31.0 + seed], workers=workers, seed=seed)
            make_run(f"again/{workers}{seed}", [60.0, 30.0 + seed], algorithm="ssgd", workers=workers, seed=seed)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (config(), "dc_asgd_icml2017-table1-quick"),
        (config(group="mine"), "mine"),
        (config(experiment=None), "2026-01-01_00-00-00_abc"),
    ],
)
def test_experiment_runs_are_one_group(given: DictConfig, name: str) -> None:
    assert group_of(given, Path("outputs/x/2026-01-01_00-00-00_abc")) == name


def test_the_evaluation_is_the_reports(runs: Path) -> None:
    again = {run.folder for run in collect([runs / "again"])}
    tables = evaluated("dc_asgd_icml2017/table1", runs, again)
    columns, cells = tables["table1/table"]
    found = {(row[1], row[2]): dict(zip(columns, row, strict=True)) for row in cells}
    assert set(found) == {("M=4", "ASGD"), ("M=4", "SSGD"), ("M=8", "ASGD"), ("M=8", "SSGD")}
    assert found["M=8", "ASGD"]["measured"] == 31.5
    assert found["M=8", "ASGD"]["published"] == 10.26
    assert found["M=8", "ASGD"]["seeds"] == 2
    assert found["M=8", "ASGD"]["seeds_without"] == 0
    _, claims = tables["table1/claims"]
    assert ["final_test_error[SSGD, M=8] <= final_test_error[ASGD, M=8]", "holds"] in [
        [row[1], row[4]] for row in claims
    ]
    assert evaluated("dc_asgd_icml2017/table1", runs, {runs / "elsewhere"}) == {}
    assert evaluated("none/such", runs, again) == {}


def test_outputs_may_be_a_relative_path(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A sweep's folder is `outputs/…`, below the working folder.
    monkeypatch.chdir(runs.parent)
    again = {run.folder for run in collect([runs / "again"])}
    assert evaluated("dc_asgd_icml2017/table1", Path("runs"), again) == evaluated(
        "dc_asgd_icml2017/table1", runs, again
    )
    assert "table1/table" in evaluated("dc_asgd_icml2017/table1", Path("runs"), again)


@pytest.mark.parametrize("given", [config("disabled"), config(experiment=None), config(experiment="a/b")])
def test_nothing_is_logged_unasked(runs: Path, given: DictConfig) -> None:
    assert write(given, runs / "sweep", [runs / "first" / "40"]) is None
    assert not (runs / "sweep").exists()


def test_wandb_that_fails_ends_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert write(config(), runs / "sweep", [runs / "first" / "40"]) is None
    assert "wandb failed (InputError: logger=wandb: cannot be imported" in caplog.text


def test_a_broken_archive_ends_no_sweep(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive.write(runs / "kept.jsonl", [])
    with open(runs / "kept.jsonl", "a") as file:
        file.write("broken\n")
    assert write(config(), runs / "sweep", [runs / "first" / "40"]) is None
    assert f"no table in wandb: {runs / 'kept.jsonl'}:2: is not JSON" in caplog.text


# In a process of its own: wandb keeps a service running in the one that used it.
WRITE = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from runner.report.wandb_table import write
print(write(OmegaConf.load("config.yaml"), Path("runs/sweep"), [Path("runs/first/40")]))
"""


@pytest.mark.slow
def test_wandb_reads_its_own_table(runs: Path, tmp_path: Path) -> None:
    OmegaConf.save(config(), tmp_path / "config.yaml")
    done = subprocess.run([sys.executable, "-c", WRITE], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    place = tmp_path / done.stdout.strip()
    assert place.parent == tmp_path / "runs" / "sweep" / "wandb"
    assert place.name.startswith("offline-run-")
    tables = {path.name.partition("_")[0]: json.loads(path.read_text()) for path in place.rglob("*.table.json")}
    assert set(tables) == {"table", "claims"}
    assert any(row[1:4] == ["M=8", "ASGD", 31.5] for row in tables["table"]["data"])
    assert {row[4] for row in tables["claims"]["data"]} == {"holds", "undecided", "not measured"}
    reader = shutil.which("wandb", path=str(Path(sys.executable).parent))
    assert reader is not None
    told = subprocess.run([reader, "leet", "inspect", "--json", str(place)], capture_output=True, text=True, check=True)
    for part in ("dc_asgd_icml2017-table1-quick", "report", "claims_holds", "table1/table"):
        assert part in told.stdout, told.stdout[:2000]
