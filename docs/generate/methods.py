"""Writes the pages of the methods: equations and sources from docstrings, papers, experiments and curves."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from algorithms.base import ParameterServer
from algorithms.collective import Collective
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from docs.generate import configuration
from docs.generate.configuration import escape

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES: dict[str, tuple[type, str]] = {
    "parameter_server": (ParameterServer, "Parameter server"),
    "collective": (Collective, "Collective"),
    "shared_memory": (SharedMemory, "Shared memory"),
    "pipeline": (Pipeline, "Pipeline"),
}
"""Page, protocol and title of each way to communicate."""
SCALES = ("paper", "short", "own", "quick")
"""Scales of figures, the one that says most first."""


@functools.cache
def described() -> dict[str, dict[str, Any]]:
    """Return what docs/methods.yaml says of each method."""
    return _file()["methods"]


def _file() -> dict[str, Any]:
    """Return docs/methods.yaml."""
    return yaml.safe_load((ROOT / "docs" / "methods.yaml").read_text(encoding="utf-8"))


def options() -> dict[str, type]:
    """Return the class of each option of `conf/algorithm/`."""
    named = {path.stem: configuration.target_of(path) for path in configuration.options("algorithm")}
    return {name: target for name, target in named.items() if target}


def topology(method: type) -> str:
    """Return the name of the page that a method is on."""
    return next(name for name, (protocol, _) in TOPOLOGIES.items() if issubclass(method, protocol))


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    by_module: dict[str, list[str]] = {}
    classes = options()
    for option, method in classes.items():
        by_module.setdefault(method.__module__, []).append(option)
    whole = {}
    for name, (_, title) in TOPOLOGIES.items():
        parts = [_section(m, names) for m, names in by_module.items() if topology(classes[names[0]]) == name]
        whole[name] = f"# {title}\n\n" + "\n".join(parts)
    return whole


def _section(module: str, names: list[str]) -> str:
    """Return the section of a file of `algorithms/` and its options."""
    doc = inspect.cleandoc(importlib.import_module(module).__doc__ or "")
    title, _, rest = doc.partition("\n\n")
    link = f"[{module.replace('.', '/')}.py](../reference/code/algorithms.md#{module})"
    lines = [f"## {', '.join(f'`{name}`' for name in names)}", "", escape(title), "", to_markdown(rest), ""]
    lines += [f"- Code: {link}", *(f"- {line}" for line in _facts(names)), ""]
    return "\n".join(lines + _curves(names))


def _facts(names: list[str]) -> list[str]:
    """Return keys, papers and experiments of options."""
    papers = list(dict.fromkeys(key for name in names for key in described().get(name, {}).get("papers", ())))
    runs = list(dict.fromkeys(run for name in names for run in described().get(name, {}).get("experiments", ())))
    keys = ", ".join(f"[{name}](../reference/configuration/algorithm.md#algorithm{name})" for name in names)
    facts = [f"Keys: {keys}"]
    if papers:
        facts.append("Papers: " + "; ".join(_file()["papers"][key] for key in papers))
    if runs:
        facts.append("Experiments: " + ", ".join(f"`dcrun experiment={run}`" for run in runs))
    return facts


def _curves(names: list[str]) -> list[str]:
    """Return the figures of options, each with where it comes from."""
    figures = list(dict.fromkeys(filter(None, (figure_of(name) for name in names))))
    if not figures:
        return ["No curve: nothing that could show one has been measured yet.", ""]
    return [line for figure in figures for line in (*_figure(figure), "")]


def figure_of(option: str) -> str | None:
    """Return the name of the figure that shows a method, at the scale that says most; None if it has none."""
    said = described().get(option, {})
    candidates = [f"{said.get('figure')}-{scale}-{said.get('metric')}" for scale in SCALES]
    return next((name for name in candidates if name in shown()), None)


@functools.cache
def shown() -> dict[str, tuple[str, str, str]]:
    """Return (page of docs/results/, setting, title) of each figure that those pages show, by its name."""
    found = {}
    for page in sorted((ROOT / "docs" / "results").glob("*.md")):
        setting = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            setting = line.lstrip("# ") if line.startswith("#") else setting
            if image := re.match(r"!\[(.*)\]\(\.\./figures/(.*)\.png\)", line):
                found[image[2]] = (page.name, setting, image[1])
    return found


def _figure(figure: str) -> list[str]:
    """Return a figure with its caption: the setting that the page of results names, and a link to that page."""
    page, setting, title = shown()[figure]
    said = f"{setting} · [these runs and what they say](../results/{page})"
    return [f"![{title}](../figures/{figure}.png)", "", f"*{title}.* {said}"]


def to_markdown(doc: str) -> str:
    """Return a docstring as Markdown: indented blocks stay as they are, `name: text` lines become a list."""
    blocks = []
    for block in re.split(r"\n\n+", doc):
        lines = block.splitlines()
        intro = [line for line in lines if not line.startswith(" ")]
        if lines[: len(intro)] != intro or not intro:
            blocks.append("```text\n" + textwrap.dedent("\n".join(lines)) + "\n```")
            continue
        blocks.append(escape("\n".join(intro)))
        items = re.split(r"\n {4}(?! )", "\n" + "\n".join(lines[len(intro) :]))[1:]
        blocks += ["\n".join("- " + escape(re.sub(r"\s+", " ", item)) for item in items)] if items else []
    return _joined(blocks)


def _joined(blocks: list[str]) -> str:
    """Join blocks; two blocks of equations that follow each other are one, with the empty line between them."""
    text = "\n\n".join(blocks)
    return text.replace("\n```\n\n```text\n", "\n\n")
