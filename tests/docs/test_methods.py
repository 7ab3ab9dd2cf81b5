"""docs/methods.yaml agrees with the options, the experiments and the figures; every method has its section."""

import re
from typing import Any

import pytest
import yaml

from docs.generate import methods

FILE: dict[str, Any] = yaml.safe_load((methods.ROOT / "docs" / "methods.yaml").read_text(encoding="utf-8"))
METHODS: dict[str, dict[str, Any]] = FILE["methods"]
EXPERIMENTS = methods.ROOT / "conf" / "experiment"


def whole(experiment: str) -> str:
    """The text of an experiment, and of the one that it begins with."""
    text = (EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8")
    base = re.search(r"^  - (\w+/\w+)$", text, re.MULTILINE)
    return text + (whole(base[1]) if base else "")


def test_every_method_is_described():
    assert sorted(METHODS) == sorted(methods.options())


def test_every_method_has_a_section_with_its_equations():
    text = "".join(methods.pages().values())
    for name in METHODS:
        assert re.search(rf"^## .*`{name}`", text, re.MULTILINE)
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections if "```text\n" not in section] == []


@pytest.mark.parametrize("name", METHODS)
def test_papers_and_experiments_exist(name: str):
    said = METHODS[name]
    assert said["papers"] and set(said["papers"]) <= set(FILE["papers"])
    for experiment in said["experiments"]:
        text = whole(experiment)
        assert re.search(rf"algorithm(=|: |=[\w,]*,){name}\b", text), f"{experiment} does not run {name}"


@pytest.mark.parametrize("name", [name for name, said in METHODS.items() if "figure" in said])
def test_the_figure_shows_the_method(name: str):
    figure = methods.figure_of(name)
    assert figure, "no page of docs/results/ shows it"
    svg = (methods.ROOT / "docs" / "figures" / f"{figure}.svg").read_text(encoding="utf-8")
    assert re.search(rf">{re.escape(METHODS[name]['label'])}<", svg)


def test_every_paper_is_cited():
    assert set(FILE["papers"]) == {key for said in METHODS.values() for key in said["papers"]}


def test_docstrings_become_markdown():
    doc = "Text of _one_ line.\n\n    a = b\n\n    c = d\n\nDecided here:\n    key: one\n        two\n    other: three"
    assert methods.to_markdown(doc) == (
        "Text of \\_one\\_ line.\n\n```text\na = b\n\nc = d\n```\n\nDecided here:\n\n- key: one two\n- other: three"
    )
