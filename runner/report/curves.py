"""The curves of a paper's figure, from our runs: what both kinds of figures, on the page and as files, draw."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.report import method_colors, metrics
from runner.report.evaluations import numbered
from runner.report.evidence import Block
from runner.report.run import Run, finite
from runner.report.settings import averaged
from runner.run_folder.columns import EPOCH, SECONDS

DECADES = 1e3
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""

Rows = Sequence[Mapping[str, Any]]
Column = tuple[list[float | None], list[float | None]]


@dataclass(frozen=True)
class Curve:
    """The mean over the seeds.

    Attributes:
        name: the method.
        index: its colour and dash, the same in every panel (see `runner.report.method_colors`).
        x: places along the horizontal axis.
        y: means, at evaluations that all runs have.
        spread: standard deviations over the seeds; empty of one seed.
        published: the paper's end point, if it gives one.
        least: the smallest value over the seeds: on a logarithmic axis the band goes no lower, as to below zero.
    """

    name: str
    index: int
    x: list[float]
    y: list[float]
    spread: list[float]
    published: float | None
    least: list[float] = field(default_factory=list)

    def band(self, log: bool) -> tuple[list[float], list[float]]:
        """Return where the band of one standard deviation begins and ends; empty of one seed."""
        pairs = list(zip(self.y, self.spread, strict=True)) if self.spread else []
        low = [value - s for value, s in pairs]
        if log and self.least:
            low = [max(value, least) for value, least in zip(low, self.least, strict=True)]
        return low, [value + s for value, s in pairs]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above them.
        y: the vertical axis.
        curves: what is drawn.
        x: the horizontal axis, if it is not the figure's.
        log_x: whether that axis is logarithmic.
    """

    title: str
    y: str
    curves: list[Curve]
    x: str = ""
    log_x: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels side by side, for one quantity."""

    name: str
    title: str
    x: str
    panels: list[Panel]
    log_y: bool = False
    log_x: bool = False


def figures(block: Block) -> list[Figure]:
    """Return an exhibit's figures: a figure per quantity, a panel per row with curves enough to compare."""
    exhibit = block.exhibit
    if exhibit.kind == "layers":
        return [_of_layers(block, quantity) for quantity in exhibit.y]
    if exhibit.kind != "curves":
        return []
    # Of runs without a summary the clock is unknown, and "None seconds" would name no unit.
    clocks = {str(run.summary.get("clock")) for run in block.runs} & {"virtual", "measured"}
    indices = _indices(block)
    made = []
    for quantity in exhibit.y:
        # The published star belongs to the figure of its own quantity: `final_test_error`
        # to `test_error`, not to the loss.
        ends = exhibit.metric.partition("_")[2] == quantity
        panels = []
        for row in exhibit.rows:
            curves = [
                mean_curve(
                    measured.runs, exhibit.x, quantity, name, indices[name], measured.cell.published if ends else None
                )
                for name in exhibit.columns
                if (measured := block.cells.get(f"{name}, {row}")) is not None
            ]
            curves = [curve for curve in curves if curve.x]
            # One curve alone compares nothing, unless the exhibit has only one.
            if len(curves) > (len(exhibit.columns) > 1):
                panels.append(Panel(row, metrics.name(quantity), curves))
        # Both names if runs of both clocks are drawn: virtual and measured seconds are not the same.
        along = " and ".join(sorted(clocks)) + " seconds" if exhibit.x == SECONDS else metrics.name(exhibit.x)
        if panels:
            name = f"{exhibit.folder}-{exhibit.name}-{block.scale or 'own'}-{quantity}"
            made.append(Figure(name, exhibit.title, along, panels, log_y=falls_far(panels)))
    return made


def _indices(block: Block) -> dict[str, int]:
    """Return the colours of an exhibit's columns: those of their methods, or of their places if all are of one."""
    methods: dict[str, str] = {}
    for measured in block.cells.values():
        methods.setdefault(measured.cell.column, str(measured.runs[0].value("algorithm")))
    # In the exhibit's order, whatever was measured first.
    known = [name for name in block.exhibit.columns if name in methods]
    if len(set(methods.values())) < 2:
        return {name: place for place, name in enumerate(block.exhibit.columns)}
    return dict(zip(known, method_colors.numbers([methods[name] for name in known]), strict=True))


def falls_far(panels: Sequence[Panel]) -> bool:
    """Return whether a quantity falls through so many decades, as a duality gap does, that a linear axis hides most."""
    values = [value for panel in panels for curve in panel.curves for value in curve.y]
    # A logarithmic axis has no place for zero or less.
    return min(values) > 0 and max(values) / min(values) >= DECADES


def _of_layers(block: Block, quantity: str) -> Figure:
    """Return a panel per network with a curve per layer, the mean over the seeds."""
    panels = []
    numbers: dict[str, int] = {}  # a layer's colour is the same in every panel that has a layer of its name
    for measured in block.cells.values():
        series = [run.layers(quantity) for run in averaged(measured.runs)]
        # From each run's first row: layers do not change during a run, and a set would lose the network's order.
        names = list(dict.fromkeys(name for rows in series for row in rows[:1] for name in row[quantity]))
        curves = []
        for name in names:
            columns = [([finite(r.get(EPOCH)) for r in s], [finite(r[quantity].get(name)) for r in s]) for s in series]
            curves.append(_mean(series, columns, name, numbers.setdefault(name, len(numbers)), None))
        panels.append(Panel(measured.cell.row, metrics.name(quantity), [curve for curve in curves if curve.x]))
    name = f"{block.exhibit.folder}-{block.exhibit.name}-{block.scale or 'own'}-{quantity}"
    return Figure(name, block.exhibit.title, metrics.name(EPOCH), [p for p in panels if p.curves], log_y=True)


def mean_curve(
    runs: Sequence[Run], along: str, quantity: str, name: str, index: int, published: float | None = None
) -> Curve:
    """Average runs at the evaluations that all of them have: one run of each seed, only ended ones if any has ended."""
    # Without rows first: a run that ended but lost its metrics must not displace one of the same seed that has them.
    counting = averaged(run for run in runs if run.rows)
    columns = [(run.curve(along), metrics.column(run, quantity)) for run in counting]
    return _mean([run.rows for run in counting], columns, name, index, published)


def _mean(series: Sequence[Rows], columns: Sequence[Column], name: str, index: int, published: float | None) -> Curve:
    lines = []
    for numbers, (places, values) in zip(numbered(series), columns, strict=True):
        # A row without a number, as after divergence, leaves its evaluation out of the mean, not the whole run.
        known = zip(numbers, places, values, strict=True)
        lines.append({number: (x, y) for number, x, y in known if x is not None and y is not None})
    x, y, spread, least = [], [], [], []
    # Only evaluations that every run has: a mean over changing runs jumps where one of them joins or ends.
    for number in sorted(set[int].intersection(*map(set, lines))) if lines else ():
        places, values = zip(*(line[number] for line in lines), strict=True)
        x.append(statistics.fmean(places))
        y.append(statistics.fmean(values))
        spread.append(statistics.stdev(values) if len(values) > 1 else 0.0)
        least.append(min(values))
    many = len(columns) > 1
    return Curve(name, index, x, y, spread if many else [], published, least if many else [])
