"""Writes the reference of all configuration keys: name, type, default, meaning.

Names, defaults and meanings are those of `conf/`, types those of `runner/config/schema.py` and of the constructors.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from hydra.utils import get_class

from docs.generate.yaml_comments import Key, header, keys
from runner.config import schema

CONF = Path(schema.__file__).resolve().parents[2] / "conf"
SECTIONS = {"cluster": schema.ClusterConfig, "schedule": schema.ScheduleConfig, "logger": schema.LoggerConfig}
"""Groups whose keys the schema types."""
TARGETS = ("algorithm", "model", "dataset")
"""Groups whose options name a class, the constructor of which has the types."""
SWEEPS = ("launcher", "sweeper")
"""Groups of Hydra's that dcrun has options of its own for."""
_WORDS = {
    "None": "null",
    "NoneType": "null",
    "float": "number",
    "int": "integer",
    "str": "text",
    "bool": "true or false",
    "list": "list",
    "dict": "mapping",
    "Mapping": "mapping",
    # What `_target_` and arguments describe.
    "Dataset": "mapping",
    "Sequence": "list",
    "tuple": "list",
    "Path": "text",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A key as the reference shows it."""

    name: str
    kind: str
    default: str
    meaning: str


def options(group: str) -> list[Path]:
    """Return the files of a group's options, by name."""
    return sorted((CONF / group).glob("*.yaml"))


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    whole = {
        "run": "# The run\n\nKeys of every run. `conf/config.yaml` has their defaults.\n\n" + table(run_rows()),
    }
    for group in SECTIONS:
        whole[group] = _group_page(group, section_rows)
    for group in TARGETS:
        whole[group] = _group_page(group, target_rows)
    sweeps = [
        _option(path, target_rows(path), f"hydra/{group}") for group in SWEEPS for path in options(f"hydra/{group}")
    ]
    whole["sweeps"] = "# Launchers and sweepers\n\nKeys of the jobs of a sweep, below `hydra.`.\n\n" + "\n".join(sweeps)
    return whole


def _group_page(group: str, rows: Any) -> str:
    """Return the page of a group: a section for each of its options."""
    parts = [_option(path, rows(path), group) for path in options(group)]
    return f"# {group.capitalize()}\n\nOptions of the group `{group}`, and their keys.\n\n" + "\n".join(parts)


def _option(path: Path, rows: list[Row], group: str) -> str:
    """Return the section of one option."""
    return f"## {group}={path.stem}\n\n{escape(header(path))}\n\n{table(rows) if rows else 'It has no keys.'}\n"


@functools.cache
def run_rows() -> list[Row]:
    """Return the keys of `conf/config.yaml`: those above the groups, and those of `run`."""
    top = [key for key in keys(CONF / "config.yaml") if key.name in ("seed", "scale", "seeds")]
    kinds = schema_types(schema.Config)
    return [_row(key, key.name, kinds) for key in top] + [
        _row(key, f"run.{key.name}", schema_types(schema.RunConfig, "run."))
        for key in keys(CONF / "config.yaml", below="run")
    ]


@functools.cache
def section_rows(path: Path) -> list[Row]:
    """Return the keys of an option of a group that the schema types."""
    group = path.parent.name
    kinds = schema_types(SECTIONS[group], f"{group}.")
    return [_row(key, f"{group}.{key.name}", kinds) for key in keys(path) if not key.section]


@functools.cache
def target_rows(path: Path) -> list[Row]:
    """Return the keys of an option that names a class."""
    group = ".".join(path.relative_to(CONF).parts[:-1])
    target = target_of(path)
    parameters = inspect.signature(target).parameters if target else {}
    kinds = {f"{group}.{name}": _written(p.annotation) for name, p in parameters.items()}
    return [_row(key, f"{group}.{key.name}", kinds) for key in keys(path) if not key.section]


def target_of(path: Path) -> type | None:
    """Return the class that an option names; None for `own`, whose class is the user's."""
    target = yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"]
    return None if target == "???" else get_class(target)


def schema_types(section: Any, prefix: str = "") -> dict[str, str]:
    """Return the type of each key of a schema by its full name, as the source or the comment above it says it."""
    source = inspect.getsource(section)
    found = {}
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(field.type):
            found |= schema_types(field.type, f"{prefix}{field.name}.")
        else:
            # `Any` is what OmegaConf knows; the comment above the field says what it stands for.
            said = re.search(rf"# Any: ([^.\n]*)\.[^\n]*\n    {field.name}: Any", source)
            found[prefix + field.name] = said[1] if said else _written(field.type)
    return found


def _written(annotation: Any) -> str:
    """Return an annotation as source has it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(_written(part) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(f'"{value}"' for value in get_args(annotation))
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def _row(key: Key, name: str, kinds: dict[str, str]) -> Row:
    """Return a key's row; where no type is declared, as for arguments of submitit's, it is that of the default."""
    default = yaml.safe_load(key.default)
    kind = kinds.get(name) or ("integer or text or null" if default is None else type(default).__name__)
    return Row(name, plain_type(kind), key.default, key.meaning)


def plain_type(annotation: str) -> str:
    """Say a type in words: `float | None` is "number or null"."""
    if " or " in annotation:
        return annotation
    words = [_WORDS.get(word.rpartition(".")[2], word) for word in re.sub(r"\[[^|]*?\]+", "", annotation).split(" | ")]
    # An integer is a number.
    return " or ".join(dict.fromkeys(word for word in words if word != "integer" or "number" not in words))


def all_rows() -> Iterator[tuple[str, Row]]:
    """Yield (option, row) of every key that the reference shows."""
    yield from (("run", row) for row in run_rows())
    for group in SECTIONS:
        yield from ((f"{group}={path.stem}", row) for path in options(group) for row in section_rows(path))
    for group in (*TARGETS, *(f"hydra/{group}" for group in SWEEPS)):
        yield from ((f"{group}={path.stem}", row) for path in options(group) for row in target_rows(path))


def table(rows: Iterable[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for row in rows:
        cells = (f"`{row.name}`", escape(row.kind), f"`{row.default}`", escape(row.meaning))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape what Markdown would read as markup outside of backticks."""
    parts = text.split("`")
    return "`".join(re.sub(r"([_*<\[\]])", r"\\\1", part) if n % 2 == 0 else part for n, part in enumerate(parts))
