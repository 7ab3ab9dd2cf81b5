"""The mutations that `mutations.py` tries, and the table of what caught them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

SURVIVED = "**SURVIVED**"
UNTRIED = "not tried yet"
FAILS_ANYWAY = "**FAILS WITHOUT the mutation**"


@dataclass(frozen=True)
class Mutation:
    """One line broken on purpose.

    Attributes:
        file: path of the source file, relative to the checkout.
        find: text that occurs exactly once in the file.
        replace: what stands there instead.
        tests: files or node ids of pytest; at least one of these tests must fail.
        why: what would go wrong.
    """

    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    why: str = ""

    def apply(self, checkout: Path) -> str:
        """Return the file's text with the mutation.

        Raises:
            ValueError: `find` does not occur exactly once, or `replace` changes nothing.
        """
        path = checkout / self.file
        text = path.read_text() if path.is_file() else ""
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"{self.file}: {self.find!r} occurs {count} times, allowed: once")
        if self.find == self.replace:
            raise ValueError(f"{self.file}: {self.find!r} is replaced by itself")
        return text.replace(self.find, self.replace)

    def cells(self, checkout: Path) -> tuple[str, str, str]:
        """Return the first cells of the mutation's row in the table: first changed line, what changed in it, why."""
        before, after = (checkout / self.file).read_text().splitlines(), self.apply(checkout).splitlines()
        changes = difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
        blocks = [(a, b, c, d) for kind, a, b, c, d in changes if kind != "equal"]
        gone = " ⏎ ".join(line.strip() for a, b, _, _ in blocks for line in before[a:b])
        come = " ⏎ ".join(line.strip() for _, _, c, d in blocks for line in after[c:d])
        changed = f"{_code(gone)} → {_code(come)}".replace("|", "\\|")
        return f"{self.file}:{blocks[0][0] + 1}", changed, self.why.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`" if text else "nothing"


def load(paths: Iterable[Path]) -> list[Mutation]:
    """Return the mutations that the yaml files list."""
    entries = [entry for path in paths for entry in yaml.safe_load(path.read_text())]
    return [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def read_table(path: Path) -> dict[tuple[str, str], str]:
    """Return what caught each mutation, by its file and what it changed; nothing if there is no table yet."""
    text = path.read_text() if path.is_file() else ""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {(place.split(":")[0], changed): caught_by for place, changed, _, caught_by in rows}


def write_table(path: Path, cells: Mapping[Mutation, tuple[str, ...]], caught_by: Mapping[Mutation, str]) -> None:
    """Write a row for each mutation; those not tried this time keep what caught them before.

    Args:
        path: the table.
        cells: the first cells of every row.
        caught_by: of those that were tried.
    """
    before = read_table(path)
    lines = []
    for mutation, first in cells.items():
        known = before.get((mutation.file, first[1]), UNTRIED)
        lines.append(row(*first, caught_by.get(mutation, known)))
    survived, untried = (sum(line.endswith(f"{end} |") for line in lines) for end in (SURVIVED, UNTRIED))
    head = [
        "# Lines broken on purpose, and the test that noticed",
        "",
        f"Written by `python benchmarks/mutations.py --write`: {len(lines)} lines, of which {survived} survived and"
        f" {untried} have not been tried since they were changed. A line is caught by the first test that failed.",
        "",
        row("line", "mutation", "what would go wrong", "caught by"),
        "|---|---|---|---|",
    ]
    path.write_text("\n".join([*head, *lines]) + "\n")


def row(*cells: str) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
