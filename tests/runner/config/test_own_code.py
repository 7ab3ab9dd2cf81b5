import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.config import own_code
from runner.config.installation import ROOT


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's with modules in packages of the project's names, which is on the path."""
    (tmp_path / "models" / "parts").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "models" / "theirs.py").write_text(
        "from models.base import Chain\nfrom models.parts.block import NAME\n"
    )
    (tmp_path / "models" / "parts" / "block.py").write_text("NAME = 'block'\n")
    (tmp_path / "models" / "linear.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "random.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    own_code.add([tmp_path, ROOT])
    yield tmp_path
    for name in ("theirs", "parts", "parts.block"):
        sys.modules.pop(f"models.{name}", None)


def test_modules_join_the_projects_package(theirs: Path):
    module = importlib.import_module("models.theirs")
    assert module.NAME == "block"
    assert module.__file__ == str(theirs / "models" / "theirs.py")
    assert module.Chain is importlib.import_module("models.base").Chain


def test_projects_modules_come_first(theirs: Path):
    found = importlib.util.find_spec("models.linear")
    assert found is not None
    assert found.origin == str(ROOT / "models" / "linear.py")


def test_users_folder_comes_last(theirs: Path):
    assert sys.path[-1] == str(theirs)
    assert str(ROOT) in sys.path[:-1]
    own_code.add([theirs])
    assert sys.path.count(str(theirs)) == 1


def test_unknown_module_is_not_found(theirs: Path):
    with pytest.raises(ModuleNotFoundError, match=r"models\.nothing"):
        importlib.import_module("models.nothing")
    # No module of the user's joins what is not shared.
    (theirs / "runner").mkdir()
    (theirs / "runner" / "theirs.py").write_text("")
    assert own_code.OwnParts.find_spec("runner.theirs") is None


@pytest.mark.parametrize(
    ("target", "ours"),
    [("data.digits.Digits", True), ("data.mine.Pairs", False), ("mine.Pairs", False), ("runner.train.build", False)],
)
def test_projects_targets_are_told_apart(target: str, ours: bool):
    assert own_code.is_projects(target) == ours
