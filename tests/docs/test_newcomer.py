"""The way of a newcomer: a fresh clone, and the commands of README.md in its order and as they stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.experiments import hydra_composer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LONGEST = 100


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of all shell blocks, without comments; a backslash at the end of a line joins the next."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    stripped = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines)
    return [re.sub(r"\s+", " ", line) for line in stripped if line]


class Clone:
    """A fresh clone with an environment that sees this one's packages, so that nothing has to be downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[Path] = []
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
        [site] = (folder / ".venv").glob("lib/python*/site-packages")
        # An older one, which Python 3.11 puts there, would hide the one that PyTorch needs.
        for old in (*site.glob("setuptools*"), site / "pkg_resources"):
            shutil.rmtree(old, ignore_errors=True)
        (site / "theirs.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, command: str, activated: bool = True) -> str:
        """Run a line in a new shell, in the environment once it has been activated; return what it says."""
        # The build of dcrun itself takes the hatchling that is there; packages come from nowhere else.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
        line = f"source .venv/bin/activate && {command}" if activated else command
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        new = sorted(set(self.folder.glob("outputs/**/summary.json")) - set(self.ran), key=lambda p: p.stat().st_mtime)
        self.ran += new
        return done.stdout + done.stderr

    def summaries(self, count: int) -> list[dict[str, Any]]:
        """The summaries of the newest runs, which have all come to their end."""
        found = [json.loads(path.read_text()) for path in self.ran[-count:]]
        assert [one["status"] for one in found] == ["completed"] * count
        return found


def learns(clone: Clone, _: str) -> None:
    [summary] = clone.summaries(1)
    assert summary["final_test_error"] < 5
    first = json.loads(clone.ran[0].read_text())
    assert summary["weights_sha256"] == first["weights_sha256"]


def completes(count: int, **values: Any) -> Callable[[Clone, str], None]:
    def check(clone: Clone, _: str) -> None:
        for summary in clone.summaries(count):
            assert {key: summary[key] for key in values} == values

    return check


def is_a_replay(clone: Clone, said: str) -> None:
    assert "weights: bit for bit those of the recorded run" in said


def continues(epochs: int) -> Callable[[Clone, str], None]:
    def check(clone: Clone, _: str) -> None:
        assert json.loads(clone.ran[0].read_text())["epochs"] == epochs

    return check


def says(text: str) -> Callable[[Clone, str], None]:
    def check(_: Clone, said: str) -> None:
        assert text in said

    return check


def writes(pattern: str) -> Callable[[Clone, str], None]:
    def check(clone: Clone, _: str) -> None:
        assert list(clone.folder.glob(pattern))

    return check


RECORDED, FIRST = "the recorded run", "the first run"
LEFT_OUT = "left out"
"""Takes a download, data that are not here, or the tests; that it composes is tested without running it."""
EXPECTED: dict[str, Callable[[Clone, str], None] | str] = {
    "make run": learns,
    "make test": LEFT_OUT,
    "source .venv/bin/activate": lambda *_: None,
    "dcreport outputs": writes("outputs/report.html"),
    "dcrun algorithm=dc_asgd_a model=resnet20": learns,
    "dcrun algorithm=dc_asgd_a cluster=processes cluster.workers=4": completes(1, workers=4),
    "dcrun -m algorithm=asgd,dc_asgd_a cluster.workers=4,8 seed=0,1 model=mlp": completes(8),
    "dcrun dataset=cifar10 dataset.root=DIR dataset.download=true": LEFT_OUT,
    "dcrun algorithm=fr model=resnet20 cluster.workers=4": completes(1, algorithm="fr", workers=4),
    "dcrun algorithm=shared_asysvrg model=mlp algorithm.inner=100": completes(1, algorithm="shared_asysvrg"),
    "dcrun cluster=replay cluster.trace=outputs/dcrun/<run>": is_a_replay,
    "dcrun run.resume=outputs/dcrun/<run>": continues(10),
    "dcrun run.resume=outputs/dcrun/<run> run.epochs=20": continues(20),
    "dcrun experiment=dc_asgd_icml2017/table1 dataset.root=DIR": LEFT_OUT,
    "dcrun --help": says("== Exit codes =="),
    "dcrun algorithm=drop_stale cluster.workers=16 cluster.compute.distribution=gamma": completes(1, workers=16),
    "dcrun-check algorithms/drop_stale.py": says(" passed"),
    # Tried by a test of their own, tests/runner/cli/entry/test_dist.py, with environments that cannot lie in this one.
    "make dist": LEFT_OUT,
    "pip install dist/dcrun-0.1.0-py3-none-any.whl": LEFT_OUT,
}


def test_every_command_has_an_expected_result():
    assert commands(README) == list(EXPECTED)


@pytest.mark.parametrize("command", [name for name, check in EXPECTED.items() if check == LEFT_OUT])
def test_what_is_left_out_composes(command: str):
    if command.startswith("dcrun "):
        overrides = [word for word in command.split()[1:] if word != "-m"]
        with hydra_composer() as compose:
            assert compose.one(overrides).dataset.root == "DIR"
    else:
        assert re.search(rf"^{command.split()[1]}: ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_lines_of_code_are_short(page: Path):
    code = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [line for block in code for line in block.splitlines() if len(line) > LONGEST] == []


def write_own_method(folder: Path) -> None:
    """Write the files that README.md shows to where their first lines say."""
    for language in ("python", "yaml"):
        for block in blocks(README, language):
            name = block.split("\n", 1)[0].removeprefix("# ")
            (folder / name).write_text(block)


def filled_in(command: str, clone: Clone) -> str:
    """Put a run in place of `<run>`: the recorded one for a replay, else the first one."""
    if "<run>" not in command:
        return command
    runs = [path.parent for path in clone.ran]
    chosen = next(run for run in runs if (run / "trace.jsonl").exists()) if "replay" in command else runs[0]
    return command.replace("outputs/dcrun/<run>", str(chosen.relative_to(clone.folder)))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_commands_of_the_readme_in_order(tmp_path: Path):
    clone = Clone(tmp_path / "clone")
    write_own_method(clone.folder)
    for command, check in EXPECTED.items():
        if not isinstance(check, str):
            said = clone.run(filled_in(command, clone), activated=not command.startswith(("make", "source")))
            check(clone, said)
