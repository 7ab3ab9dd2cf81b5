"""The documentation's pictures of the page, from a real browser."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.generate import screenshots
from tests.page_visit import CHROMIUM, IN_BROWSER
from tests.runner.conftest import runs_below

pytestmark = IN_BROWSER


def test_pictures_are_of_the_committed_runs() -> None:
    assert "table1.jsonl" in [path.name for path in screenshots.RUNS]


def test_a_picture_is_taken_of_each_width_and_scheme(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -e .[browser]")
    make_run: Callable[..., Path] = runs_below(tmp_path)
    for method in ("asgd", "ssgd"):
        make_run(method, [60.0, 40.0], algorithm=method)
    made = screenshots.take(tmp_path, [tmp_path / "runs"], str(CHROMIUM))
    assert {path.name for path in made} == {
        f"report-{width}-{scheme}.png" for width in (1280, 390) for scheme in ("light", "dark")
    }
    for path in made:
        # A PNG's width and height stand at its sixteenth byte.
        assert f"-{struct.unpack('>II', path.read_bytes()[16:24])[0]}-" in path.name
    light, dark = (tmp_path / f"report-1280-{scheme}.png" for scheme in screenshots.SCHEMES)
    assert light.read_bytes() != dark.read_bytes()
