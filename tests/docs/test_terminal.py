"""The picture of the terminal shows what a user sees at the end of a run, and the numbers of a real one."""

import re
import xml.etree.ElementTree as ET

import pytest

from docs.generate import terminal

BAR = "\x1b[38;5;197m━━\x1b[0m epoch 0.9/1  0:01 left"


def test_what_is_overwritten_is_left_out():
    written = f"{BAR}\r\x1b[2K{BAR}\r\x1b[2Kepoch 1.00/1\r\n{BAR}\r\n\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1mtable\x1b[0m\r\n"
    assert terminal.shown(written).plain.splitlines()[1:] == ["epoch 1.00/1", "table"]


def test_the_picture_is_whole_and_fetches_nothing():
    svg = terminal.PICTURE.read_text(encoding="utf-8")
    ET.fromstring(svg)
    assert "url(http" not in svg and "@font-face" not in svg
    text = terminal.plain(svg)
    assert f"$ dcrun {' '.join(terminal.COMMAND)}" in text
    assert len(terminal.errors(text)) >= 10 and re.search(r"test error *│ best [\d.]+ %", text)


@pytest.mark.slow
def test_the_picture_shows_what_the_run_gives():
    shown = terminal.errors(terminal.shown(terminal.typed(terminal.COMMAND)).plain)
    # Another processor rounds differently, and the errors of single epochs are a few images apart.
    assert float(shown[-1]) == pytest.approx(
        float(terminal.errors(terminal.plain(terminal.PICTURE.read_text()))[-1]), abs=2
    )
