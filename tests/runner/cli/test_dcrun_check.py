import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from runner.cli import dcrun_check
from runner.config.installation import ROOT
from tests.docs.test_own_code import README, lay_down

ADAM = """
from dataclasses import dataclass
from typing import ClassVar

from algorithms.asgd import ASGD
from algorithms.base import in_range


@dataclass(kw_only=True, eq=False)
class SignASGD(ASGD):
    '''ASGD along the signs of gradients: steps of the size of Adam's.'''

    usual_rates: ClassVar[tuple[float, ...]] = RATES
    floor: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        in_range("floor", self.floor, 0)

    def push(self, worker, message, step):
        return super().push(worker, {"g": message["g"].sign()}, step)
"""
OPTIONS = "defaults: [asgd, _self_]\n_target_: nets.signs.SignASGD\nfloor: 0.0\n"


class Checked(list[str]):
    """The files of options that the suite would have been run on."""


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    """Runs no suite, beside README's method in a folder `mine`; what it would be run on is noted."""
    lay_down(tmp_path / "mine", README)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(dcrun_check.CHECKED, "")
    monkeypatch.chdir(tmp_path)
    noted = Checked()

    def run(given: Namespace) -> int:
        noted.extend(os.environ[dcrun_check.CHECKED].split(os.pathsep))
        return 0

    monkeypatch.setattr(dcrun_check, "_pytest", run)
    return noted


def test_method_is_named_by_its_file_or_its_options(checked: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    option = tmp_path / "mine" / "conf" / "algorithm" / "drop_stale.yaml"
    assert dcrun_check.main(["mine/algorithms/drop_stale.py"]) == 0
    assert str(tmp_path / "mine") in sys.path
    assert dcrun_check.main(["--config-dir", "mine/conf", "drop_stale"]) == 0
    monkeypatch.chdir(tmp_path / "mine")
    assert dcrun_check.main(["drop_stale", "--quick"]) == 0
    assert checked == [str(option)] * 3
    assert dcrun_check.main(["asgd"]) == 0
    assert checked[3:] == [str(ROOT / "conf" / "algorithm" / "asgd.yaml")]


def test_file_with_several_classes_has_all_checked(checked: Checked, tmp_path: Path):
    options = tmp_path / "mine" / "conf" / "algorithm"
    (options / "again.yaml").write_text((options / "drop_stale.yaml").read_text())
    (options / "other.yaml").write_text("_target_: algorithms.asgd.ASGD\n")
    assert dcrun_check.main(["mine/algorithms/drop_stale.py"]) == 0
    assert checked == [str(options / "again.yaml"), str(options / "drop_stale.yaml")]


def test_wrong_input_is_one_line(checked: Checked, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "alone.py").write_text("")
    (tmp_path / "mine" / "conf" / "algorithm" / "sgd.yaml").write_text("_target_: algorithms.drop_stale.DropStale\n")
    for given, said in (
        (["drop_stall", "--config-dir", "mine/conf"], "algorithm=drop_stall: no such option; allowed: ad_psgd, "),
        (["nothing.py"], "nothing.py: no such file; allowed: "),
        (["alone.py"], "alone.py: no option of "),
        (["drop_stale", "--config-dir", "nowhere"], "--config-dir=nowhere: no such folder; allowed: "),
        (["sgd", "--config-dir", "mine/conf"], "algorithm=sgd: dcrun has an option of this name"),
    ):
        assert dcrun_check.main(given) == 2, given
        error = capsys.readouterr().err
        assert error.startswith(f"dcrun-check: {said}") and error.count("\n") == 1
    assert not checked


def test_failures_are_told_shortly(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def run(arguments: list[str]) -> pytest.ExitCode:
        asked.extend(arguments)
        return pytest.ExitCode.TESTS_FAILED

    monkeypatch.setattr(pytest, "main", run)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(dcrun_check.CHECKED, "")
    assert dcrun_check.main(["asgd", "--quick"]) == 1
    assert "--tb=short" in asked, "sources of the suite and of Hydra would bury the method's line"


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, as an installation does."""
    code = "import sys, dcrun; sys.exit(dcrun.check())"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runner" / "cli" / "entry"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_readmes_method_passes(tmp_path: Path):
    lay_down(tmp_path, README)
    # Settings of the user's own tests are not the suite's.
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    done = check(tmp_path, "algorithms/drop_stale.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout and " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "code"), [("(1e-3, 3e-3)", 0), ("(1e-7,)", 1)])
def test_method_has_its_own_rates(rates: str, code: int, tmp_path: Path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "signs.py").write_text(ADAM.replace("RATES", rates))
    (tmp_path / "conf" / "algorithm").mkdir(parents=True)
    (tmp_path / "conf" / "algorithm" / "signs.yaml").write_text(OPTIONS)
    done = check(tmp_path, "nets/signs.py", "--quick", "-k", "learns or arguments or declared")
    assert done.returncode == code, done.stdout + done.stderr
    assert ("at learning rates (1e-07,)" in done.stdout) == bool(code)
