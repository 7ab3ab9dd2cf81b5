"""What tests of the page in a browser share: which browser, what they ask of a plot, and of the table."""

import os
import shutil
from typing import Any

import pytest

CHROMIUM = os.environ.get("DCRUN_CHROMIUM") or shutil.which("chromium")
IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium, or set DCRUN_CHROMIUM"),
]
"""Marks of a file of such tests. `make test-browser` installs what is needed; without it they are skipped."""
EVIL = "<b>evil</b><img src=x onerror=alert(1)>"
OPEN_ALL = "for (const part of document.querySelectorAll('details')) part.open = true; drawAll();"
COLORS = """(place) => document.querySelector(place).data.filter((trace) => trace.meta === "curve")
  .map((trace) => [trace.name, trace.line.color])"""
CURVES = "(id) => document.getElementById(id).data.filter((trace) => trace.meta === 'curve')"


def column(page: Any, name: str) -> list[str]:
    """Return the texts of a column of the runs' table."""
    place = page.eval_on_selector_all("#table th", "(all, n) => all.findIndex((h) => h.dataset.column === n)", name)
    return page.eval_on_selector_all("#table tbody tr", "(rows, n) => rows.map((r) => r.cells[n].textContent)", place)
