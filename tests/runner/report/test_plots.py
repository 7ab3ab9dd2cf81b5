"""Figures as files."""

import re
from pathlib import Path

from runner.report.curves import Curve, Figure, Panel
from runner.report.plots import save


def figure(**options: bool) -> Figure:
    curves = [
        Curve("ASGD", 0, [1.0, 2.0, 3.0], [60.0, 50.0, 40.0], [1.0, 2.0, 3.0], 35.0),
        Curve("cost $x", 1, [3.0], [45.0], [], None),
    ]
    return Figure("table1-own", "a title", "epochs", [Panel("M=4", "test error", curves)], **options)


def test_picture_and_vector_are_written(tmp_path: Path):
    path = save(figure(), tmp_path / "figures")
    assert path == tmp_path / "figures" / "table1-own.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    text = re.sub(r"\s+", " ", path.with_suffix(".svg").read_text())
    for words in ("ASGD", "cost $x", "M=4", "test error", "epochs", "published end point"):
        assert words in text, "names are text, and a dollar is no formula"


def test_same_curves_give_same_bytes(tmp_path: Path):
    first, second = save(figure(), tmp_path / "a"), save(figure(), tmp_path / "b")
    for suffix in (".png", ".svg"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


def test_logarithmic_axis_differs(tmp_path: Path):
    plain, decades = save(figure(), tmp_path / "a"), save(figure(log_y=True), tmp_path / "b")
    assert plain.with_suffix(".svg").read_text() != decades.with_suffix(".svg").read_text()
