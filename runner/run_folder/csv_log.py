"""Writes the rows of a run as `metrics.csv` too, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.run_folder.contents import METRICS_CSV
from runner.run_folder.jsonl import append, replace


class CsvLog:
    """The file `metrics.csv` of a run: a line of columns, then a line for each evaluation.

    A value that a row does not have is an empty cell.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_CSV
        self._rows: list[Mapping[str, Any]] = []
        self._columns: list[str] = []

    def take_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace what the file holds by the rows that count, of a run that begins by none."""
        self._rows = list(rows)
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        self._rewrite()

    def log(self, row: Mapping[str, Any]) -> None:
        """Add an evaluation; it is on the disk on return.

        Raises:
            OSError: the file cannot be written.
        """
        self._rows.append(row)
        if set(row) <= set(self._columns):
            append(self.path, self._lines([row]))
            return
        # The first row brings the columns. A later one may bring more, and their names belong into the first line.
        self._columns += [key for key in row if key not in self._columns]
        self._rewrite()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Do nothing: each row is in the file already, and the summary is a file of its own."""

    def _rewrite(self) -> None:
        heading = [dict(zip(self._columns, self._columns, strict=True))] if self._columns else []
        replace(self.path, self._lines([*heading, *self._rows]).encode())

    def _lines(self, rows: Sequence[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            writer.writerow(row.get(key) for key in self._columns)
        return text.getvalue()
