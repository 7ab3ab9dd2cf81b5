"""What the papers report, from the `published*.yaml` files beside the experiments (a long paper has one a chapter).

    paper: Zheng et al., ICML 2017
    exhibits:
      table1:
        title: ...                       # what it shows
        source: table 1                  # where in the paper
        kind: table                      # table | grid (of a search: the best cell is named) | curves | layers
        metric: final_test_error         # what the cells hold (see `runner.report.metrics`)
        match: {model: resnet20}         # which runs can belong to it
        setting: {run.epochs: 160}       # the paper's; a run's deviations are listed
        rows: {"M=4": {workers: 4}}      # what picks the runs of a row, of a column
        columns: {asgd: {algorithm: asgd}}
        values: {"M=4": {asgd: 9.27}}    # published; null: a cell without a number. Only these cells exist
        tuned: [schedule.lr]             # settings that each cell may have its own best value of
        differ: [run.epochs]             # settings that cells may differ in besides
        claims:
          - {claim: "final_test_error[asgd, M=4] > 9", source: section 6}
          - {claim: "final_test_error[asgd, {row}] > 9", rows: all, source: section 6}    # a claim for each row
          - {claim: ..., source: ..., central: ASGD is worse}    # one that the paper stands for, in a few words

A setting is picked by a value, by `{any: [values]}`, or by `{of: other setting, times: 2}`. In place of `values` there
may be `cells`, which says for each what picks its runs. Curves have besides `x` (a column of the metrics) and `y` (a
list of them; a figure for each, a panel for each row); layers are curves of a quantity of `layers.jsonl`.
`same_as: table1` takes over what is not said, of an exhibit above; `experiment` names the file where the exhibit is a
part of one. `others: digits_own` names an experiment by which methods join that no column names: each has a column of
its own after these, with cells in the rows that it ran in. `length: ours` says that the paper does not tell how long
its runs are. A claim's `rows`, a list or `all`, makes a claim of each row, whose name stands for `{row}`. A claim about
seconds needs a title or note that names the clock: it judges the clock's formula too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runner.report.folder import YAML_LOADER
from runner.run_folder.columns import EPOCH, TEST_ERROR
from runner.run_folder.summary_keys import FINAL_TEST_ERROR

EXPERIMENTS = Path(__file__).resolve().parents[2] / "conf" / "experiment"
KINDS = ("table", "grid", "curves", "layers")
_OF_THE_CLOCK = re.compile(r"\bclock\b|\b[Vv]irtual\b")
_KEYS = frozenset(
    {"title", "source", "kind", "metric", "match", "setting", "rows", "columns", "values", "claims", "x", "y"}
    | {"same_as", "note", "tuned", "differ", "cells", "experiment", "length", "others"}
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table, or a curve of a figure.

    Attributes:
        row: name of its row.
        column: name of its column.
        match: settings that its runs have; what the column says goes before what the row says.
        published: the paper's number; None if it gives none.
    """

    row: str
    column: str
    match: Mapping[str, Any]
    published: float | None

    @property
    def id(self) -> str:
        """How claims name it."""
        return f"{self.column}, {self.row}"


@dataclass(frozen=True)
class Claim:
    """Something a paper states that runs can bear out: `final_test_error[a] < final_test_error[b]`, and where."""

    text: str
    source: str
    words: str = ""
    central: str = ""


@dataclass(frozen=True)
class Numbers:
    """A paper's numbers.

    Attributes:
        metric: what they are.
        values: a number for each cell that has one.
    """

    metric: str
    values: Mapping[str, float]

    def of(self, metric: str, cell: str) -> float | None:
        """Return the paper's number of a cell, None if it has none of this metric."""
        return self.values.get(cell) if metric == self.metric else None


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of a paper."""

    paper: str
    folder: str
    name: str
    title: str
    source: str
    kind: str
    metric: str
    match: Mapping[str, Any]
    setting: Mapping[str, Any]
    rows: list[str]
    columns: list[str]
    cells: list[Cell]
    claims: list[Claim]
    x: str = EPOCH
    y: list[str] = field(default_factory=lambda: [TEST_ERROR])
    note: str = ""
    tuned: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    experiment: str = ""
    our_length: bool = False
    others: str = ""

    @property
    def id(self) -> str:
        """Its name, which remarks in Markdown go by."""
        return f"{self.folder}/{self.name}"

    @property
    def command(self) -> str:
        """What measures it."""
        return f"dcrun experiment={self.folder}/{self.experiment or self.name}"

    @property
    def experiments(self) -> list[str]:
        """The experiments whose runs it shows."""
        return [f"{self.folder}/{name}" for name in (self.experiment or self.name, self.others) if name]

    @property
    def numbers(self) -> Numbers:
        """The paper's numbers."""
        return Numbers(self.metric, {c.id: c.published for c in self.cells if c.published is not None})

    @property
    def picked(self) -> frozenset[str]:
        """The settings that tell cells apart."""
        return frozenset(key for cell in self.cells for key in cell.match)


def load(folder: Path = EXPERIMENTS) -> list[Exhibit]:
    """Read all `published*.yaml` below a folder.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    exhibits = []
    # Sorted: the order of a folder's entries depends on the file system, and pages follow it.
    for path in sorted(folder.glob("*/published*.yaml")):
        # Not through Hydra: these files hold data, and the report does without Hydra's start.
        document = yaml.load(path.read_text(encoding="utf-8"), YAML_LOADER)
        whole: dict[str, dict[str, Any]] = {}
        for name, given in document.get("exhibits", {}).items():
            if (base := given.get("same_as")) not in (None, *whole):
                raise ValueError(
                    f"{path}: {name}: same_as={base}: is not there; allowed: {', '.join(whole)} (those above)"
                )
            # Shallow on purpose: a key that is given, as `rows`, replaces the whole of the other exhibit's.
            whole[name] = {**({} if base is None else whole[base]), **given}
            exhibits.append(_exhibit(path, str(document["paper"]), str(name), whole[name]))
    return exhibits


def _exhibit(path: Path, paper: str, name: str, given: dict[str, Any]) -> Exhibit:
    where = f"{path}: {name}"
    # A misspelt `claims` would otherwise be a table without claims, and nobody would miss them.
    if unknown := sorted(set(given) - _KEYS):
        raise ValueError(f"{where}: unknown key {unknown[0]}; allowed: {', '.join(sorted(_KEYS))}")
    for key in ("title", "source", "rows", "columns", "values"):
        if key not in given and not (key == "values" and "cells" in given):
            raise ValueError(f"{where}: lacks {key}")
    kind = given.get("kind", "table")
    if kind not in KINDS:
        raise ValueError(f"{where}: kind={kind}: is not a kind; allowed: {', '.join(KINDS)}")
    rows, columns = given["rows"], given["columns"]
    if (length := given.get("length")) not in (None, "ours"):
        raise ValueError(f"{where}: length={length}: is not known; allowed: ours, or no length for the paper's")
    cells = []

    def match(row: str, column: str) -> dict[str, Any]:
        # From the general to the particular: what the single cell says overrides its column, which overrides its row.
        return {**(rows[row] or {}), **(columns[column] or {}), **own.get(row, {}).get(column, {})}

    own = given.get("cells", {})
    # Cells without a table of numbers exist as well: their published value is None.
    values = given.get("values") or {row: dict.fromkeys(line) for row, line in own.items()}
    for row, line in values.items():
        for column, value in line.items():
            # A number under a misspelt name would be a cell that no run can fill.
            if row not in rows or column not in columns:
                raise ValueError(f"{where}: values: {column}, {row} is not a cell; allowed: the rows and columns above")
            cells.append(Cell(row, column, match(row, column), value))
    claims = [claim for one in given.get("claims") or () for claim in _claims(where, one, list(rows))]
    said = f"{given['title']} {given.get('note', '')}"
    if not _OF_THE_CLOCK.search(said) and (timed := [claim.text for claim in claims if "seconds" in claim.text]):
        raise ValueError(
            f"{where}: claims: {timed[0]}: is about seconds; allowed: with a title or note that names the clock"
        )
    return Exhibit(
        paper,
        path.parent.name,
        name,
        given["title"],
        str(given["source"]),
        kind,
        given.get("metric", FINAL_TEST_ERROR),
        given.get("match", {}),
        given.get("setting", {}),
        list(rows),
        list(columns),
        cells,
        claims,
        given.get("x", EPOCH),
        given.get("y", [TEST_ERROR]),
        given.get("note", ""),
        given.get("tuned", []),
        given.get("differ", []),
        given.get("experiment", ""),
        given.get("length") == "ours",
        given.get("others") or "",
    )


def _claims(where: str, given: Mapping[str, Any], rows: Sequence[str]) -> list[Claim]:
    """Return a claim, or one for each of the rows that it is of."""
    text, named = given["claim"], given.get("rows", [])
    chosen = rows if named == "all" else named
    if ("{row}" in text) is not bool(chosen) or not set(chosen) <= set(rows):
        raise ValueError(
            f"{where}: claims: {text}: rows={named}: do not fit; allowed: with {{row}} in the claim all, or a list of "
            f"{', '.join(rows)}; without it none"
        )
    # Not `format`: a cell's name may hold braces of its own.
    texts = [text.replace("{row}", row) for row in chosen] or [text]
    common = str(given.get("source", "")), given.get("words", ""), given.get("central", "")
    return [Claim(own, *common) for own in texts]
