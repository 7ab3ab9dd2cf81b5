"""Writes the pages of the code: every module, by the room that it lies in; mkdocstrings fills them from docstrings."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("algorithms", "models", "data", "runner")


def modules() -> dict[str, Path]:
    """Return the file of every public module by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            # The package `dcrun` of a wheel, which has no code of its own but the way to ours.
            if "entry" not in path.parts:
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                found[name] = path
    return found


def page_of(module: str) -> str:
    """Return the name of the page that a module is on: its package, or its room of `runner/`."""
    parts = module.split(".")
    return "_".join(parts[:2]) if parts[0] == "runner" and len(parts) > 1 else parts[0]


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    whole: dict[str, str] = {}
    for name in modules():
        page = page_of(name)
        whole.setdefault(page, f"# `{page.replace('_', '/', 1)}/`\n")
        whole[page] += f"\n::: {name}\n"
    return whole
