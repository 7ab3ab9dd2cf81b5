"""The page docs/own_code.md: its files are laid down in a folder of the user's, and its commands are run there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runner.config.installation import ROOT

TEXT = (ROOT / "docs" / "own_code.md").read_text(encoding="utf-8")
FUNCTIONS = {"dcrun": "main", "dcrun-check": "check"}
"""Where the commands of the page start in `runner/cli/entry/dcrun`."""
README = (ROOT / "README.md").read_text(encoding="utf-8")


def files(text: str) -> dict[str, str]:
    """The files that a page shows: a block whose first line names it."""
    return dict(re.findall(r"```(?:python|yaml)\n# (\S+\.\w+)\n(.*?)```", text, re.DOTALL))


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", "").splitlines()]


def lay_down(folder: Path, text: str = TEXT) -> None:
    for name, content in files(text).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def run(command: list[str], folder: Path) -> str:
    """Run a command of the page in a folder, as an installation does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runner" / "cli" / "entry"), "OMP_NUM_THREADS": "1"}
    start = f"import sys, dcrun; sys.exit(dcrun.{FUNCTIONS[command[0]]}())"
    done = subprocess.run(
        [sys.executable, "-c", start, *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_page_shows_files_and_commands():
    assert {*files(TEXT)} == {
        "algorithms/drop_stale.py",
        "conf/algorithm/drop_stale.yaml",
        "nets.py",
        "conf/model/net.yaml",
        "pairs.py",
        "conf/dataset/pairs.yaml",
    }
    assert len(commands()) >= 8
    assert {command[0] for command in commands()} == {*FUNCTIONS}


def test_page_and_readme_show_one_method():
    ours, theirs = files(TEXT), files(README)
    assert {*theirs} == {"algorithms/drop_stale.py", "conf/algorithm/drop_stale.yaml"}
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.slow
def test_commands_of_the_page_run_in_a_folder_of_the_users(tmp_path: Path):
    lay_down(tmp_path)
    said = [run(command, tmp_path) for command in commands()]
    ended = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    # All commands make a run but the check of the method and an evaluation; the sweep makes two.
    assert len(ended) == len(said) - 1
    assert {summary["status"] for summary in ended} == {"completed"}
    models = {summary["model"] for summary in ended}
    assert models >= {"nets.Net", "torchvision.models.resnet18", "net"}
    assert {summary["dataset"] for summary in ended} >= {"pairs", "pairs.Pairs"}
    [told] = [text for text in said if "recorded" in text]
    assert "test_error" in told


@pytest.mark.slow
def test_readmes_method_runs_in_a_folder_of_the_users(tmp_path: Path):
    lay_down(tmp_path, README)
    assert (tmp_path / "conf" / "algorithm" / "drop_stale.yaml").is_file()
    short = ["model=linear", "run.epochs=1", "run.threads=1", "logger=none", "cluster.workers=2", "hydra.run.dir=a"]
    run(["dcrun", "algorithm=drop_stale", *short], tmp_path)
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["algorithm"] == "drop_stale"
