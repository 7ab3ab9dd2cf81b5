"""Reads what the comments of a YAML file of `conf/` say of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Key:
    """A key of an option.

    Attributes:
        name: its name below the option, with dots, as `compute.seconds`.
        default: its value as the file has it; empty for a section, whose keys follow.
        meaning: what the comment beside it says, in one line; empty if there is none.
    """

    name: str
    default: str
    meaning: str

    @property
    def section(self) -> bool:
        """Whether keys lie below this one."""
        return not self.default


def header(path: Path) -> str:
    """Return the comment that a file begins with, in one line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def keys(path: Path, below: str | None = None) -> list[Key]:
    """Return all keys of a file in its order, `_target_` and `defaults` left out.

    Args:
        path: the file.
        below: read the keys of this section only, with names that begin below it; None: of the file.
    """
    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    if not isinstance(node, yaml.MappingNode):
        return []
    if below is not None:
        node = next(value for key, value in node.value if key.value == below)
    return list(_walk(node, text.splitlines(), ""))


def _walk(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Key]:
    """Yield the keys of a mapping and of those inside it."""
    for key, value in node.value:
        if key.value in ("_target_", "defaults"):
            continue
        name = prefix + key.value
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield Key(name, "", _comment(lines, key.end_mark, key.start_mark.column))
            yield from _walk(value, lines, f"{name}.")
        else:
            default = _source(lines, value)
            yield Key(name, default, _comment(lines, value.end_mark, key.start_mark.column))


def _source(lines: list[str], value: yaml.Node) -> str:
    """Return a value as the file writes it."""
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    return " ".join(line.strip() for line in lines[start.line : end.line])


def _comment(lines: list[str], end: yaml.Mark, column: int) -> str:
    """Return the comment that begins after a key's value and goes on in the lines below, further in than the key."""
    _, found, comment = lines[end.line][end.column :].partition("#")
    if not found:
        return ""
    parts = [comment.strip()]
    for line in lines[end.line + 1 :]:
        further = re.fullmatch(r"( *)#(.*)", line)
        if not further or len(further[1]) <= column:
            break
        parts.append(further[2].strip())
    return " ".join(parts)
