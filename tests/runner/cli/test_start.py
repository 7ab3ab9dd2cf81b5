"""How a run starts: alone in its folder, and with nothing left of one that did not get far."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from runner.cli import main
from runner.cli.compose import CONF
from runner.config.errors import InputError
from runner.config.paths import quoted
from tests.runner.cli.conftest import Executed


def test_mistake_found_while_building_leaves_no_folder(
    executed: Executed, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    def refuse(cfg: object, folder: Path | None) -> int:
        assert folder is not None
        (folder / "summary.json").unlink()
        raise InputError("dataset.root=x: does not exist;\nallowed: a folder")

    executed.behave = refuse
    assert main.main([]) == 2
    assert capfd.readouterr().err == "dcrun: dataset.root=x: does not exist; allowed: a folder\n"
    assert list(tmp_path.iterdir()) == []
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "a").touch()
    for way in ("mine", "./mine", "mine/../mine", str(kept)):
        assert main.main([f"hydra.run.dir={way}"]) == 2
        assert (kept / "a").exists()


@pytest.mark.parametrize(
    ("line", "begun"),
    [
        ("algorithm=asgd cluster=processes", True),
        ("algorithm=asgd run.compute_processes=2", True),
        ("algorithm=asgd", False),
        ("algorithm=asgd cluster=processes run.estimate=true", False),
        ("algorithm=asgd run.timing_only=true", False),
    ],
)
def test_fork_server_begins_with_the_imports(line: str, begun: bool, executed: Executed):
    """Of a run that is sure to start processes; else they would wait until the run's own process has imported all."""
    assert main.main([*line.split(), "logger=none"]) == 0
    assert executed.servers == ([("runner.train.dispatch",)] if begun else [])


def test_a_single_run_is_composed_once(executed: Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was checked is what runs, and is what is recorded; each composition takes a tenth of a second."""
    composed: list[list[str]] = []
    load = ConfigLoaderImpl.load_configuration

    def counted(self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *rest: Any, **more: Any) -> Any:
        composed.append(list(overrides))
        return load(self, config_name, overrides, *rest, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    assert main.main(["seed=3", "hydra.run.dir=mine"]) == 0
    assert composed == [["seed=3", "hydra.run.dir=mine"]]
    recorded = OmegaConf.load(tmp_path / "mine" / ".hydra" / "hydra.yaml")
    assert recorded.hydra.overrides.task == ["seed=3"]
    assert recorded.hydra.overrides.hydra == ["hydra.run.dir=mine", "hydra.run.dir='mine'", "hydra.mode=RUN"]
    assert (recorded.hydra.run.dir, recorded.hydra.mode) == ("mine", "RUN")
    assert recorded.hydra.runtime.output_dir == str(tmp_path / "mine")


def test_early_interrupt_leaves_nothing(executed: Executed, tmp_path: Path):
    def interrupt(cfg: object, folder: Path | None) -> int:
        assert folder is not None
        (folder / "summary.json").unlink()
        raise KeyboardInterrupt

    executed.behave = interrupt
    assert main.main([]) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_early_signal_has_its_code_and_leaves_nothing(number: signal.Signals, executed: Executed, tmp_path: Path):
    def stop(cfg: object, folder: Path | None) -> int:
        assert folder is not None
        (folder / "summary.json").unlink()
        os.kill(os.getpid(), number)
        return 0

    executed.behave = stop
    assert main.main([]) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_signal_before_a_killed_run_goes_on_ends_it(executed: Executed):
    main.main(["hydra.run.dir=outputs/a"])
    summary = Path("outputs/a/summary.json")
    assert json.loads(summary.read_text()) == {"status": "running"}, "it was killed"

    def stop(cfg: object, folder: Path | None) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    executed.behave = stop
    assert main.main(["run.resume=outputs/a"]) == 143
    assert json.loads(summary.read_text())["status"] == "interrupted"


def test_finished_run_is_not_overwritten(executed: Executed, capfd: pytest.CaptureFixture[str]):
    assert main.main(["hydra.run.dir=outputs/a"]) == 0
    before = Path("outputs/a/.hydra/overrides.yaml").stat().st_mtime_ns
    assert main.main(["hydra.run.dir=outputs/a", "seed=1"]) == 2
    assert len(executed) == 1
    err = capfd.readouterr().err
    assert "run.resume=outputs/a" in err
    assert err.count("\n") == 1
    assert Path("outputs/a/.hydra/overrides.yaml").stat().st_mtime_ns == before


STUB = """
import json, sys, time, types
def dispatch(cfg, folder):
    time.sleep(1)
    (folder / "summary.json").write_text(json.dumps({"algorithm": cfg.names.algorithm}))
    return 0
sys.modules["runner.train.dispatch"] = stub = types.ModuleType("dispatch")
stub.dispatch = dispatch
from runner.cli import main
sys.exit(main.main(sys.argv[1:]))
"""
"""A program that is `dcrun` without torch: a run takes a second and notes its algorithm."""


def start(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(CONF.parent)}
    command = [sys.executable, "-c", STUB, *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_two_runs_into_one_folder_one_is_refused(tmp_path: Path):
    for number in range(2):
        runs = {name: start(f"algorithm={name}", f"hydra.run.dir=a/{number}", cwd=tmp_path) for name in ("sgd", "asgd")}
        told = {name: run.communicate(timeout=120)[1] for name, run in runs.items()}
        codes = {name: run.returncode for name, run in runs.items()}
        assert sorted(codes.values()) == [0, 2]
        [won] = [name for name, code in codes.items() if code == 0]
        [lost] = [name for name, code in codes.items() if code == 2]
        folder = tmp_path / "a" / str(number)
        assert json.loads((folder / "summary.json").read_text()) == {"algorithm": won}
        assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == [f"algorithm={won}"]
        assert told[lost].startswith(f"dcrun: hydra.run.dir=a/{number}: ")
        assert told[lost].count("\n") == 1


def test_unexpected_error_after_resume_is_logged(executed: Executed):
    main.main(["hydra.run.dir=outputs/a"])
    Path("outputs/a/dcrun.log").write_text("first\n")

    def fail(cfg: object, folder: Path | None) -> int:
        raise RuntimeError("later")

    executed.behave = fail
    assert main.main(["run.resume=outputs/a"]) == 1
    text = Path("outputs/a/dcrun.log").read_text()
    assert text.startswith("first\n")
    assert "RuntimeError: later" in text


def test_estimate_leaves_no_folder(executed: Executed, tmp_path: Path):
    def estimate(cfg: object, folder: Path | None) -> int:
        assert folder is None
        return 0

    executed.behave = estimate
    assert main.main(["run.estimate=true"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *("a b", "a]{,", "it's", "a$b"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("a=b", "a[b", 'a"b', "naïve", "a\\b", "100%", "null")
        ),
    ],
)
def test_folder_may_have_any_name(name: str, executed: Executed, tmp_path: Path):
    folder = tmp_path / "outputs" / name
    assert main.main([f"hydra.run.dir={quoted(f'outputs/{name}')}", "seed=3"]) == 0
    assert OmegaConf.load(folder / ".hydra" / "config.yaml").seed == 3
    assert (folder / "dcrun.log").is_file()
    assert main.main([f"run.resume={quoted(f'outputs/{name}')}"]) == 0
    assert [where and Path(where).resolve() for _, where in executed] == [folder, folder]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [name]


def test_tilde_is_the_home_folder(
    executed: Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (home := tmp_path / "my home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert main.main(["hydra.run.dir=~/a"]) == 0
    assert main.main(["run.resume=~/a"]) == 0
    assert {where for _, where in executed} == {home / "a"}
    assert main.main(["hydra.run.dir=~/a"]) == 2
    hint = capsys.readouterr().err.partition("continue that run with ")[2].partition(", or choose")[0]
    assert main.main(shlex.split(hint)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["my home"]


def test_question_needs_no_folder(executed: Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It can be asked where nothing can be written."""
    monkeypatch.setattr("runner.run_folder.folders.check_writable", lambda folder, key: pytest.fail("it was tried"))
    assert main.main(["run.estimate=true"]) == 0
    assert executed[0][1] is None
    assert executed[0][0].names.algorithm


def test_finished_run_is_evaluated_and_only_read(executed: Executed, tmp_path: Path):
    assert main.main(["algorithm=sgd", "hydra.run.dir=a"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main.main(["run.resume=a", "run.evaluate_only=true"]) == 0
    cfg, folder = executed[1]
    assert folder is None
    assert (cfg.names.algorithm, cfg.model.weights, cfg.run.resume) == ("sgd", str(tmp_path / "a"), None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["more", "more options", "naïve", "a=b", "a%20b"])
def test_options_may_lie_in_any_folder(name: str, executed: Executed, tmp_path: Path):
    (tmp_path / name / "algorithm").mkdir(parents=True)
    (tmp_path / name / "algorithm" / "mine.yaml").write_text("_target_: mine.Mine\n")
    assert main.main(["algorithm=mine", "--config-dir", name, "seed=1"]) == 0
    assert executed[0][0].algorithm == {"_target_": "mine.Mine"}
