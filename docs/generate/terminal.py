"""Draws the terminal of the README: runs the command in a terminal of its own and keeps what stands there at the end.

    python -m docs.generate.terminal               # writes docs/terminal.svg; a minute on two cores

The run is a real one, in a temporary folder. Progress bars overwrite their line; what remains is what a user sees.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
COMMAND = ("algorithm=dc_asgd_a", "model=resnet20")
WIDTH = 100
_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")
# The cursor goes up a line and clears it.
_CLEARED = re.compile(r"[^\n]*\n(?:\x1b\[\?25h)?\r?\x1b\[1A\x1b\[2K")
# Of the control sequences only colours and styles (…m) are for the picture.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlnsu]|\x1b\][^\x07]*\x07")


def main() -> None:
    """Draw the picture."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0]).parse_args()
    PICTURE.write_text(draw(shown(typed(COMMAND))), encoding="utf-8")


def typed(overrides: tuple[str, ...]) -> str:
    """Return all that `dcrun` writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": str(WIDTH),
        "LINES": "50",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "runner.cli", *overrides]
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            written = bytearray()
            while chunk := _read(ours):
                written += chunk
        os.close(ours)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {written.decode()[-2000:]}")
    return written.decode()


def _read(terminal: int) -> bytes:
    """Return what has come; nothing once the other side is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def shown(written: str) -> Text:
    """Return what stands in the terminal at the end, with the command that was typed above it."""
    lines = _CLEARED.sub("", written.replace("\r\n", "\n"))
    lines = _OVERWRITTEN.sub("", _CONTROL.sub("", lines))
    kept = [line.rstrip() for line in lines.splitlines() if line.strip()]
    return Text.from_ansi("\n".join([f"$ dcrun {' '.join(COMMAND)}", *kept]))


def draw(text: Text) -> str:
    """Return the picture; its text is drawn in the fonts that the reader has, none are fetched."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(text, no_wrap=True)
    return _FONTS.sub("", console.export_svg(title="dcrun"))


def errors(text: str) -> list[str]:
    """Return the test errors of the epochs, as they are written."""
    return re.findall(r"test error +([\d.]+) %", text)


def plain(svg: str) -> str:
    """Return the text of a picture."""
    return re.sub(r"<[^>]*>", "", svg).replace("&#160;", " ")


if __name__ == "__main__":
    main()
