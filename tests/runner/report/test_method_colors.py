import itertools
import subprocess
import sys

import pytest

from runner.report import published
from runner.report.method_colors import DARK, LIGHT, color_of, numbers


def test_a_color_does_not_depend_on_the_others() -> None:
    assert numbers(["asgd", "ssgd"]) == numbers(["ssgd", "asgd"])[::-1]
    assert [color_of("asgd"), color_of("ssgd")] == numbers(["asgd", "ssgd"])


def test_curves_of_one_method_differ_in_their_dash() -> None:
    first, second, third = numbers(["asgd", "asgd", "asgd"])
    assert (second - first, third - first) == (len(LIGHT), 2 * len(LIGHT))


def test_an_own_method_keeps_its_color() -> None:
    """In another process too, whose `hash` of a text is another one."""
    line = "from runner.report.method_colors import color_of; print(color_of('my_method'))"
    told = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout
    assert int(told) == color_of("my_method")
    assert len({color_of(f"mine{k}") for k in range(40)}) == len(LIGHT)


def test_methods_that_a_paper_compares_have_different_colors() -> None:
    for exhibit in published.load():
        methods = {str(method) for cell in exhibit.cells if isinstance(method := cell.match.get("algorithm"), str)}
        # More than the palette has cannot all differ; such a table draws no curves.
        if len(methods) > len(LIGHT):
            assert exhibit.kind == "table"
            continue
        same = [pair for pair in itertools.combinations(sorted(methods), 2) if color_of(pair[0]) == color_of(pair[1])]
        assert same == [], exhibit.id


def contrast(color: str, page: str) -> float:
    """The contrast of two colours (WCAG 2)."""

    def luminance(text: str) -> float:
        parts = [int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(v * share for v, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    high, low = sorted((luminance(color), luminance(page)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("palette", "page"), [(LIGHT, "#ffffff"), (DARK, "#14171c")])
def test_labels_in_these_colors_can_be_read(palette: tuple[str, ...], page: str) -> None:
    assert min(contrast(color, page) for color in palette) >= 4.5
    assert len(set(palette)) == len(LIGHT) == len(DARK)
