import importlib
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from runner.cli import main
from runner.config.errors import InputError
from runner.config.exit_codes import run_guarded
from runner.config.installation import ROOT
from runner.config.name_clash import check_both, check_targets, explain


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's on the path, with modules named as ours, and a folder `data` that has data sets only."""
    folder = tmp_path / "theirs"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "mine.py").write_text("class Net:\n    pass\n")
    (folder / "models" / "resnet.py").write_text("class MyResNet:\n    pass\n")
    (folder / "algorithms.py").write_text("class Mine:\n    pass\n")
    (folder / "data" / "sets").mkdir(parents=True)
    (folder / "mine.py").write_text("import models.resnet\nmodels.resnet.MyResNet\n")
    (folder / "attribute.py").write_text("import algorithms\nalgorithms.Mine\n")
    (folder / "taken.py").write_text("from algorithms import Mine\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    # As the entries leave it: ours first, whatever else there is.
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for name in ("mine", "attribute", "taken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def line(asked: str, file: Path) -> str:
    name = asked.partition(".")[0]
    same = f"{name} is dcrun's ({ROOT / name / '__init__.py'}), and yours ({file}) has the same name; rename yours"
    return f"{asked}: {same}"


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("models.resnet.MyResNet", "models/resnet.py"),
        ("algorithms.Mine", "algorithms.py"),
    ],
)
def test_target_that_only_theirs_has_is_refused(theirs: Path, target: str, file: str) -> None:
    with pytest.raises(InputError) as refused:
        check_targets({"model": {"blocks": [{"_target_": target}]}})
    assert str(refused.value) == line(target, theirs / file)


@pytest.mark.parametrize(
    "target",
    [
        "models.resnet.ResNet",
        "models.mine.Net",
        "models.mine.Nothing",
        "models.nothing.Net",
        "mine.Net",
        "data.sets.Mine",
        "torch.nn.Linear",
    ],
)
def test_other_targets_pass(theirs: Path, target: str) -> None:
    check_targets({"model": {"_target_": target}})


@pytest.mark.parametrize("target", ["models.resnet.ResNet", "models.resnet.MyResNet"])
def test_option_of_a_class_that_both_have_is_refused(theirs: Path, target: str) -> None:
    (theirs / "models" / "resnet.py").write_text("class ResNet:\n    pass\n")
    if target == "models.resnet.MyResNet":
        return check_both({"_target_": target}, theirs)
    with pytest.raises(InputError) as refused:
        check_both({"_target_": target}, theirs)
    assert str(refused.value) == line(target, theirs / "models" / "resnet.py")


def test_current_folder_counts_as_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.py").write_text("class Mine:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        check_targets({"dataset": {"_target_": "data.Mine"}})
    assert str(refused.value) == line("data.Mine", tmp_path / "data.py")


def test_command_refuses_such_a_target(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["model=linear", "model._target_=models.resnet.MyResNet"]) == 2
    assert capsys.readouterr().err == f"dcrun: {line('models.resnet.MyResNet', theirs / 'models' / 'resnet.py')}\n"
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.parametrize(
    ("module", "asked", "file"),
    [
        ("mine", "models.resnet.MyResNet", "models/resnet.py"),
        ("attribute", "algorithms.Mine", "algorithms.py"),
        ("taken", "algorithms.Mine", "algorithms.py"),
    ],
)
def test_their_modules_failed_import_is_refused(
    theirs: Path, module: str, asked: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def call() -> int:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise RuntimeError("what Hydra makes of it") from error
        return 0

    assert run_guarded(call, None) == 2
    assert capsys.readouterr().err == f"dcrun: {line(asked, theirs / file)}\n"


def test_module_loaded_from_elsewhere_is_named(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = ModuleType("models")
    loaded.__path__ = [str(theirs / "models")]
    monkeypatch.setitem(sys.modules, "models", loaded)
    error = ModuleNotFoundError("No module named 'models.vgg'", name="models.vgg")
    assert str(explain(error)) == line("models.vgg", theirs / "models")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'models.mine'", name="models.mine"),
        ModuleNotFoundError("No module named 'models.nothing'", name="models.nothing"),
        ModuleNotFoundError("No module named 'nothing'", name="nothing"),
        AttributeError("module 'models.resnet' has no attribute 'Nothing'", name="Nothing", obj=importlib),
        ValueError("models.mine.Net"),
    ],
)
def test_other_errors_stay(theirs: Path, error: Exception) -> None:
    assert explain(error) is None


def test_class_lookup_says_it_once(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra's own lookup logs what it raises; a person reads one line."""
    code = main.main(["model=linear", "logger=none", "algorithm._target_=mine.Mine", "hydra.run.dir=a"])
    assert code == 2
    said = line("models.resnet.MyResNet", theirs / "models" / "resnet.py")
    assert capsys.readouterr().err == f"dcrun: {said}\n"
    assert not os.path.exists("a")
    assert logging.getLogger("hydra.utils").level == logging.CRITICAL
