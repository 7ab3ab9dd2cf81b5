import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.train.targets import check_found


def config(**targets: object) -> DictConfig:
    named = {"algorithm": "algorithms.sgd.SGD", "model": "models.linear.Linear", "dataset": "data.digits.Digits"}
    return OmegaConf.create({group: {"_target_": target} for group, target in (named | targets).items()})


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (
        ("their_needy", "import not_installed\n"),
        ("their_broken", "def f(:\n"),
        ("their_failing", "1 / 0\n"),
        ("their_taking", "from torch import nothing_of_torch\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def test_what_is_there_passes():
    check_found(config())


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("nothing.Mine", "there is no nothing; allowed: what is installed, or lies in "),
        ("models.nothing.Net", "there is no models.nothing; allowed: "),
        ("torch.nn.Nothing", "torch.nn has no Nothing; allowed: a class or function that is there"),
        ("models.linear.Nothing", "models.linear has no Nothing; "),
        ("torch.nn.Linear.Nothing", "type object 'Linear' has no attribute 'Nothing'; "),
        ("their_needy.Net", "its module imports not_installed, which is not there; "),
        ("their_broken.Net", "their_broken.py, line 1: "),
        ("their_taking.Net", "cannot import name 'nothing_of_torch' from 'torch'"),
    ],
)
def test_missing_code_is_one_line(target: str, wrong: str, theirs: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(InputError) as refused:
        check_found(config(model=target))
    said = str(refused.value)
    assert said.startswith(f"model._target_={target}: ")
    assert wrong in said
    if "lies in" in said:
        assert str(theirs) in said
    # A sweep's console shows the log too.
    assert caplog.records == []


def test_nested_code_is_looked_for_too():
    cfg = config()
    cfg.dataset.parts = [{"_target_": "nothing.Part"}]
    with pytest.raises(InputError, match=r"^dataset\.parts\[0\]\._target_=nothing\.Part: there is no nothing"):
        check_found(cfg)


def test_error_inside_a_module_stays_itself():
    with pytest.raises(ZeroDivisionError):
        check_found(config(algorithm="their_failing.Mine"))
