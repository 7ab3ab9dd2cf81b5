import subprocess
import sys
from pathlib import Path

import mutation_entries
import mutations
import pytest

CHECKOUT = Path(mutations.__file__).resolve().parents[1]
ENTRIES = mutation_entries.load(sorted(mutations.FOLDER.glob("*.yaml")))
SOURCE = "def doubled(x):\n    return 2 * x\n"
TESTS = """\
import pytest
from toy import doubled

def test_two(): assert doubled(2) == 4
def test_three(): assert doubled(3) == 6
def test_wrong(): assert doubled(3) == 7
@pytest.mark.skip
def test_left_out(): assert doubled(3) == 6
"""


@pytest.mark.parametrize("mutation", ENTRIES, ids=lambda mutation: f"{mutation.file}:{mutation.find[:40]}")
def test_every_mutation_fits_its_file(mutation: mutation_entries.Mutation):
    assert mutation.apply(CHECKOUT) != (CHECKOUT / mutation.file).read_text()


@pytest.mark.parametrize("test", sorted({test for mutation in ENTRIES for test in mutation.tests}))
def test_every_named_test_exists(test: str):
    file, *names = test.split("[")[0].split("::")
    text = (CHECKOUT / file).read_text()
    assert all(f"def {name}(" in text or f"class {name}" in text for name in names)


def test_no_line_of_the_table_survived():
    table = mutation_entries.read_table(mutations.FOLDER / mutations.TABLE)
    listed = {(mutation.file, mutation.cells(CHECKOUT)[1]) for mutation in ENTRIES}
    survived = {key for key, caught_by in table.items() if caught_by == mutation_entries.SURVIVED}
    assert not listed & survived
    assert listed & table.keys()


def tried(folder: Path, entries: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a project of two lines, with these entries."""
    (folder / "toy.py").write_text(SOURCE)
    (folder / "test_toy.py").write_text(TESTS)
    (folder / "entries").mkdir(exist_ok=True)
    (folder / "entries" / "toy.yaml").write_text(entries)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "toy.py", "test_toy.py"], cwd=folder, check=True)
    command = [sys.executable, mutations.__file__, "--checkout", folder, "--mutations", folder / "entries", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def entry(find: str, replace: str, test: str) -> str:
    return f'{{file: toy.py, find: "{find}", replace: "{replace}", tests: ["test_toy.py::{test}"], why: broken}}'


@pytest.mark.slow
def test_survivors_are_told_apart(tmp_path: Path):
    entries = [
        entry("2 * x", "2 + x", "test_two"),
        entry("2 * x", "2 + x", "test_three"),
        entry("2 * x", "x << 2", "test_left_out"),
        entry("2 * x", "3 * x", "test_wrong"),
    ]
    done = tried(tmp_path, "\n".join(f"- {line}" for line in entries), "--write", "--jobs", "2")
    assert (done.returncode, done.stderr) == (1, "")
    table = (tmp_path / "entries" / "table.md").read_text()
    caught_by = [line.split(" | ")[-1].strip("| ") for line in table.splitlines() if line.startswith("| toy.py:2")]
    assert caught_by == [
        "**SURVIVED**",
        "`test_toy.py::test_three`",
        "**SURVIVED**",
        "nothing: `test_toy.py::test_wrong` **FAILS WITHOUT the mutation**",
    ]
    assert (tmp_path / "toy.py").read_text() == SOURCE


def test_outdated_text_is_refused(tmp_path: Path):
    done = tried(tmp_path, "- " + entry("3 * x", "2 + x", "test_two"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "toy.py: '3 * x' occurs 0 times, allowed: once\n"


@pytest.mark.slow
def test_unknown_tests_are_refused(tmp_path: Path):
    done = tried(tmp_path, "- " + entry("2 * x", "2 + x", "test_four"))
    assert done.returncode == 1
    assert "not found" in done.stderr
