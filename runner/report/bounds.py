"""How far the bounds of a table's rows are apart: a side of a claim (`runner.report.claims`).

A figure that tries a layer's learning rates has a row for each layer and a column for each rate. Which layer bears the
most the paper may not say, only that they differ; so all rows are compared at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.report import metrics
from runner.report.run import Run


@dataclass(frozen=True)
class Bounds:
    """The decades from the smallest to the largest of the rows' bounds.

    A row's bound is its largest column, a number, that has the metric: the largest learning rate with which a run came
    to its target.

    Attributes:
        of: the metric.
    """

    of: str

    def by_seed(self, cells: Mapping[str, Sequence[Run]]) -> dict[int, float]:
        """Return the decades of each seed that has a bound in every row, of cells named `<number>, <row>`."""
        bounds: dict[int, dict[str, float]] = {}
        rows = set()
        for name, runs in cells.items():
            column, _, row = name.partition(", ")
            rows.add(row)
            for run in runs:
                if run.seed is not None and metrics.measured(run, self.of) is not None:
                    own = bounds.setdefault(run.seed, {})
                    own[row] = max(own.get(row, 0.0), float(column))
        # A row without any usable column has no bound, and one that a seed was not run with is unknown: without all
        # rows the distance could be too small.
        whole = {seed: own.values() for seed, own in bounds.items() if len(own) == len(rows) > 1}
        return {seed: math.log10(max(own) / min(own)) for seed, own in whole.items()}

    def lacking(self, cells: Mapping[str, Sequence[Run]]) -> list[int]:
        """Return the seeds for which some row has no bound."""
        having = self.by_seed(cells)
        return sorted({run.seed for runs in cells.values() for run in runs if run.seed is not None} - set(having))

    @property
    def metric(self) -> str:
        """What is measured, in words."""
        return f"bound of {self.of}"

    @property
    def place(self) -> str:
        """Where it is measured, in words."""
        return "some row"


def is_positive(text: str) -> bool:
    """Return whether a column's name is a positive number, as 1e-2."""
    try:
        return float(text) > 0
    except ValueError:
        return False
