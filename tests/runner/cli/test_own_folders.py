import sys
from pathlib import Path

import pytest

from runner.cli import main, own_folders
from runner.config.errors import InputError
from runner.config.installation import ROOT
from tests.runner.cli.conftest import Executed


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's with options, in which nothing runs."""
    (tmp_path / "a folder" / "conf" / "algorithm").mkdir(parents=True)
    (tmp_path / "a folder" / "conf" / "algorithm" / "mine.yaml").write_text("_target_: mine.Mine\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "a folder"


def test_folder_without_own_options_changes_nothing(user: Path):
    assert own_folders.add(["seed=1"]) == ["seed=1"]
    assert sys.path[-1] == str(Path.cwd())


def test_conf_beside_needs_no_flag(user: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(user)
    assert own_folders.add(["seed=1"]) == ["seed=1", f"hydra.searchpath=['file://{user}/conf']"]
    assert str(user) in sys.path


def test_search_paths_are_joined(user: Path):
    given = ["hydra.searchpath=['../a folder/conf',pkg://more]", "hydra.searchpath=['file:///nowhere']"]
    there = f"'file://{user}/conf','pkg://more','file:///nowhere'"
    assert own_folders.add(given) == [f"hydra.searchpath=[{there}]"]
    assert str(user) in sys.path


def test_projects_own_options_are_not_the_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(ROOT)
    assert own_folders.add([]) == []


def test_conf_of_something_else_is_left_alone(user: Path):
    Path("conf").mkdir()
    Path("conf/app.yaml").write_text("a: 1\n")
    assert own_folders.add([]) == []


def test_run_goes_on_from_elsewhere(user: Path, executed: Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(user)
    assert main.main(["algorithm=mine", "hydra.run.dir=../a"]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(user)])
    # Its code may have moved, too.
    assert main.main(["run.resume=../a", "--config-dir", str(user / "conf")]) == 0
    assert str(user) in sys.path
    cfg, _ = executed[1]
    assert cfg.algorithm == {"_target_": "mine.Mine"}


def test_replay_finds_the_recorded_options(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    stored = (
        f"hydra:\n  searchpath: ['file://{user}/conf', 'file:///gone', 'pkg://more']\n  runtime: {{cwd: {tmp_path}}}\n"
    )
    (tmp_path / "a" / ".hydra" / "hydra.yaml").write_text(stored)
    for trace in ("../a", "../a/trace.jsonl"):
        given = ["cluster=replay", f"cluster.trace={trace}"]
        assert own_folders.add(given) == [*given, f"hydra.searchpath=['file://{user}/conf','pkg://more']"]
    assert str(tmp_path) in sys.path


def test_option_that_both_have_is_refused(user: Path):
    chosen, folders = [("algorithm", "asgd")], [user / "conf"]
    (user / "conf" / "algorithm" / "asgd.yaml").write_bytes((ROOT / "conf" / "algorithm" / "asgd.yaml").read_bytes())
    own_folders.check_shadowed(folders, chosen)
    (user / "conf" / "algorithm" / "asgd.yaml").write_text("_target_: mine.Mine\n")
    with pytest.raises(InputError, match=r"algorithm=asgd: dcrun has an option of this name .* would not be used"):
        own_folders.check_shadowed(folders, chosen)


def test_help_lists_the_users_options(user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(user)
    assert main.main(["--help"]) == 0
    [listed] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("algorithm: ")]
    assert ", mine" in listed
