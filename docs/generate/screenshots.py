"""Takes the pictures of the page that the documentation shows: of committed runs, wide and narrow, light and dark.

    python -m docs.generate.screenshots    # writes docs/report-<width>-<scheme>.png

Chromium is that of DCRUN_CHROMIUM or of the path, Playwright the extra `browser`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from runner.cli.dcreport import main as dcreport

DOCS = Path(__file__).resolve().parents[1]
RUNS = sorted((DOCS / "runs" / "dc_asgd_icml2017").glob("table1*.jsonl"))
TITLE = "DC-ASGD on CIFAR-10"
WIDTHS, SCHEMES, HEIGHT = (1280, 390), ("light", "dark"), 1150


def take(folder: Path, archives: list[Path], chromium: str) -> list[Path]:
    """Write a report of archived runs, and pictures of what is seen of it without scrolling.

    Args:
        folder: where the pictures go.
        archives: the runs.
        chromium: the browser's command.

    Returns:
        the pictures.

    Raises:
        RuntimeError: if no page could be made of the archives.
    """
    # By name: it is an extra, and need not be there for whoever checks types.
    playwright = importlib.import_module("playwright.sync_api")
    made = []
    with tempfile.TemporaryDirectory() as place, playwright.sync_playwright() as tool:
        arguments = [*map(str, archives), "--out", place, "--library", "beside", "--title", TITLE]
        if dcreport(arguments) != 0:
            raise RuntimeError("dcreport failed")
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in SCHEMES:
                page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
                page.goto((Path(place) / "report.html").as_uri())
                page.wait_for_function("document.querySelector('#result .plot').dataset.painted")
                made.append(folder / f"report-{width}-{scheme}.png")
                page.screenshot(path=made[-1])
                page.close()
        browser.close()
    return made


def main() -> int:
    """Write the pictures of the documentation."""
    chromium = os.environ.get("DCRUN_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no chromium: apt-get install chromium, or set DCRUN_CHROMIUM", file=sys.stderr)
        return 2
    for path in take(DOCS, RUNS, chromium):
        print(path.relative_to(DOCS.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
