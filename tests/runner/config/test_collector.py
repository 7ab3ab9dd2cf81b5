import gc
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.config.collector import uncollected
from runner.config.installation import ROOT


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    """Objects that a test freezes are collected again after it."""
    yield
    gc.unfreeze()


def test_imports_are_not_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "large_module.py").write_text("import gc\nWAS_ON = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with uncollected():
        module = importlib.import_module("large_module")
    assert (module.WAS_ON, gc.isenabled(), gc.get_freeze_count() > 0) == (False, True, True)


def test_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_second_import_keeps_no_garbage():
    with uncollected():
        pass
    assert gc.get_freeze_count() == 0


def test_forks_collect_only_what_is_theirs():
    code = """
import gc, os
from runner.config.collector import leave_to_forks
leave_to_forks()
there = len(gc.get_objects())
if os.fork() == 0:
    print(gc.isenabled(), gc.get_freeze_count() >= there, flush=True)
    os._exit(0)
os.wait()
print(gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "False"], done.stderr
