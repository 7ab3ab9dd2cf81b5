"""One colour a method, in every figure and for ever: it depends on the method's name alone, not on who else is drawn.

A curve has a number: the colour's place in the palette, plus the palette's length for each dash that tells it from
another curve of the same colour.
"""

import functools
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

TABLE = Path(__file__).resolve().parents[2] / "conf" / "method_colors.yaml"
# Blue, orange, green, magenta, olive, cyan, violet, grey, red, lime. Labels are written in them, so each has a contrast
# of 4.5 or more with the page; the dark ones lie on a dark page.
LIGHT = (
    "#0b62b8", "#b84a00", "#007a57", "#b0307c", "#7a6200", "#0a7490", "#6a3fc7", "#5c6570", "#c2252f", "#4d7a00",
)  # fmt: skip
DARK = (
    "#6cb6ff", "#ff9d5c", "#3fd6a5", "#f28cc4", "#e3c24a", "#5fd0e6", "#bda2ff", "#b4bcc6", "#ff8a8a", "#a9d85a",
)  # fmt: skip
DASHES: tuple[tuple[int, ...], ...] = (
    (), (8, 4), (2, 3), (8, 3, 2, 3), (16, 4), (16, 3, 2, 3), (2, 3, 2, 8), (12, 3, 5, 3),
)  # fmt: skip
"""Pixels of line and gap in turn, none of a whole line: as many as a search of one method shows rows."""


@functools.cache
def _table() -> dict[str, int]:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def color_of(method: str) -> int:
    """Return the place of a method's colour in the palette."""
    known = _table().get(method)
    # Not `hash`, which is another one in each process.
    return zlib.crc32(method.encode()) % len(LIGHT) if known is None else known


def numbers(methods: Sequence[str]) -> list[int]:
    """Return the number of each curve, by the curves' methods: those of one colour differ in their dash."""
    used: Counter[int] = Counter()
    given = []
    for color in map(color_of, methods):
        given.append(color + len(LIGHT) * used[color])
        used[color] += 1
    return given
