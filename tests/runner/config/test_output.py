import errno
import io
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runner.config.installation import ROOT
from runner.config.output import Lasting, lasting_output

PRINTS = """
import logging, sys
from runner.config.output import lasting_output
with lasting_output():
    logging.basicConfig()
    for number in range(20000):
        print("line", number)
        logging.getLogger("dcrun").warning("warning %d", number)
    code = 7
sys.exit(code)
"""


@pytest.mark.parametrize("full", [False, True])
def test_program_outlives_its_reader(full: bool, tmp_path: Path):
    """`| head -1` closes the pipe after a line; /dev/full is a disk without room."""
    (tmp_path / "program.py").write_text(PRINTS)
    shell = f"({shlex.quote(sys.executable)} program.py 2>&1; echo $? > code) " + (
        "> /dev/full" if full else "| head -1"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(shell, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (tmp_path / "code").read_text() == "7\n"
    assert done.stderr == ""


class Broken(io.StringIO):
    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "the terminal is gone")


def test_lost_terminal_raises_nothing():
    stream = Lasting(Broken())
    assert stream.write("a line") == 6
    stream.writelines(["two", "lines"])
    stream.flush()
    assert stream.encoding == "utf-8"


def test_streams_are_put_back():
    before = sys.stdout, sys.stderr, logging.raiseExceptions
    with lasting_output():
        assert isinstance(sys.stdout, Lasting)
        assert not logging.raiseExceptions
    assert (sys.stdout, sys.stderr, logging.raiseExceptions) == before


def test_program_without_streams_runs(monkeypatch: pytest.MonkeyPatch):
    """As a daemon's."""
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_output():
        assert sys.stdout is None
