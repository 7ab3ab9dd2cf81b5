"""How a run starts: alone in its folder, and with nothing left of one that did not get far."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from runner.cli import main
from runner.cli.compose import CONF
from runner.config.errors import InputError
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


def test_of_two_runs_into_one_folder_one_is_refused(tmp_path: Path):
    for number in range(3):
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
        assert folder is not None
        (folder / "summary.json").unlink()
        return 0

    executed.behave = estimate
    assert main.main(["run.estimate=true"]) == 0
    assert list(tmp_path.iterdir()) == []
