"""The tutorial runs from top to bottom, in a minute on an idle machine."""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def test_its_links_lead_to_files():
    text = NOTEBOOK.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)", "".join("".join(c["source"]) for c in json.loads(text)["cells"]))
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []


def test_it_is_kept_with_its_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells)
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for command in ("dcrun", "dcreport"):
        module = "runner.cli" + (".dcreport" if command == "dcreport" else "")
        (tmp_path / command).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Its temporary folder lies in the test's.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    NotebookClient(nbformat.read(NOTEBOOK, 4), timeout=600, kernel_name="python3").execute()
    [folder] = tmp_path.glob("dcrun-tutorial-*")
    states = [json.loads(path.read_text())["status"] for path in folder.rglob("summary.json")]
    assert states == ["completed"] * 15
    assert (folder / "outputs" / "report.html").exists()
