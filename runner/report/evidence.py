"""Which runs measure a paper's table or figure, and what they say: mean and spread of each cell, deviations, claims."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from runner.report import metrics
from runner.report.claims import Verdict, judge, seeds_named
from runner.report.over_seeds import OverSeeds
from runner.report.published import Cell, Exhibit
from runner.report.run import Run, finite
from runner.report.search_results import Search, Tried, searches, tested
from runner.report.settings import averaged, by_seed, differing, one_per_seed, setting, shown
from runner.run_folder.summary_keys import COMPLETED

QUICK = "quick"
"""The scale of experiments that lasts minutes."""


@dataclass(frozen=True)
class Measured(OverSeeds):
    """A cell as it was measured.

    Attributes:
        cell: what the paper says.
        runs: one per seed.
        values: the metric by seed; runs that have none, or have not ended, are left out.
    """

    cell: Cell
    runs: list[Run]
    values: Mapping[int, float]

    @property
    def lacking(self) -> list[int]:
        """The seeds whose runs ended without a value, so that the mean is not over them."""
        return sorted(run.seed for run in self.runs if run.ended and run.seed not in (None, *self.values))

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.mean is None or self.cell.published is None else self.mean - self.cell.published


@dataclass(frozen=True)
class Block:
    """An exhibit as measured under one setting.

    Attributes:
        exhibit: the table or figure.
        cells: the measured cells by their name; those without runs are absent.
        scale: `paper`, `short`, `quick`, or None for runs that no experiment started.
        deviations: where the runs' setting differs from the paper's, in words.
        verdicts: of the exhibit's claims.
        tuned: which value of the tuned settings each cell shows, and which runs of it are left out, in words.
    """

    exhibit: Exhibit
    cells: Mapping[str, Measured]
    scale: str | None
    deviations: list[str]
    verdicts: list[Verdict]
    tuned: list[str]

    @property
    def judged(self) -> bool:
        """Whether its verdicts say something of the paper: quick scale shows that an experiment runs, and no more."""
        return self.scale != QUICK

    @property
    def runs(self) -> list[Run]:
        """All runs it rests on."""
        return [run for measured in self.cells.values() for run in measured.runs]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return sorted({run.seed for run in self.runs if run.seed is not None})

    def searches(self) -> list[Search]:
        """Return the best cells of a grid and their neighbours; cells that differ in more than numbers are apart.

        They are chosen by the validation split if the runs have one; the exhibit's own metric then stands beside.
        """
        tried = []
        shown_metric = self.exhibit.metric
        metric = metrics.chosen_by(shown_metric, self.runs)
        for measured in self.cells.values() if self.exhibit.kind == "grid" else ():
            numbers = {key: n for key, value in measured.cell.match.items() if (n := finite(value)) is not None}
            rest = {key: value for key, value in measured.cell.match.items() if key not in numbers}
            judged = replace(measured, values=_by_seed(measured.runs, metric))
            if judged.mean is not None:
                apart = json.dumps(rest, sort_keys=True)
                seeds = len(judged.values), len(judged.lacking)
                beside = tested(averaged(judged.runs), shown_metric if metric != shown_metric else None)
                tried.append(Tried(judged.cell.id, numbers, apart, judged.mean, judged.spread, *seeds, beside))
        return searches(tried, metric)

    def orders(self) -> list[str]:
        """Return the columns of each row, best first, as measured and as published, if at least two can be compared.

        A cell that some of the seeds have no value for has no place among the others.
        """
        if self.exhibit.kind == "grid":
            return [line for search in self.searches() for line in search.lines()]
        lines = []
        # Ranks go upwards, so the larger-is-better metrics are turned around.
        sign = -1.0 if "accuracy" in self.exhibit.metric else 1.0
        if self.exhibit.others:
            return self._ranks(sign)
        # Without the paper's numbers there is no order to compare, only a best.
        if all(cell.published is None for cell in self.exhibit.cells):
            found = [m for m in self.cells.values() if m.mean is not None]
            # A cell whose mean leaves out diverged seeds may look better than it is, so the number of gaps goes first.
            best = min(found, key=lambda m: (len(m.lacking), sign * (m.mean or 0.0)), default=None)
            return [] if best is None else [f"best cell: {best.cell.id}"]
        for row in self.exhibit.rows:
            row_cells = (m for m in self.cells.values() if m.cell.row == row and not m.lacking)
            known = [m for m in row_cells if m.difference is not None]
            # One cell has no order.
            if len(known) < 2:
                continue
            # Both orders are over the same columns: one that only the paper has would make every order differ.
            ours = _ranked((sign * (m.mean or 0.0), m.cell.column) for m in known)
            paper = _ranked((sign * (m.cell.published or 0.0), m.cell.column) for m in known)
            same = "the paper's order" if ours == paper else f"the paper's order is {paper}"
            lines.append(f"{row}, best first: {ours}; {same}")
        return lines

    def _ranks(self, sign: float) -> list[str]:
        """Return the columns of each row with two or more, as measured."""
        first = "highest" if sign < 0 else "lowest"
        lines = []
        for row in self.exhibit.rows:
            known = [m for m in self.cells.values() if m.cell.row == row and m.mean is not None and not m.lacking]
            if len(known) > 1:
                ranked = _ranked((sign * (m.mean or 0.0), m.cell.column) for m in known)
                lines.append(f"{row}, {first} first: {ranked}")
        return lines


def _ranked(columns: Iterable[tuple[float, str]]) -> str:
    """Return columns from the lowest value to the highest, with "=" between those that have the same."""
    ordered = sorted(columns, key=itemgetter(0))
    return ", ".join(" = ".join(name for _, name in equal) for _, equal in groupby(ordered, key=itemgetter(0)))


def measure_exhibit(exhibit: Exhibit, runs: Sequence[Run]) -> list[Block]:
    """Sort the runs that belong to an exhibit into its cells, separately for each setting they were run under.

    Args:
        exhibit: the table or figure.
        runs: all runs; those that do not belong are passed over.

    Returns:
        a block per setting, the one with most cells first. A setting under which too little was measured to compare
        is passed over: of a table fewer than two or a fifth of the cells, of a figure fewer than half of the curves,
        and no row whole; a figure's row is a panel.
    """
    # What trained nothing measures nothing, whatever its settings are.
    fit = [run for run in runs if not run.timing_only and _matches(run, exhibit.match)]
    exhibit = _joined(exhibit, fit)
    mine = [run for run in fit if any(_matches(run, cell.match) for cell in exhibit.cells)]
    # Methods have keys of their own: only a key that every run has can put runs under different settings. If lambda0
    # counted, each DC-ASGD run would lie under another setting than the ASGD run that it is compared with.
    everywhere = set.intersection(*(set(setting(run)) for run in mine)) if mine else set()
    groups: dict[str, list[Run]] = {}
    for run in mine:
        # JSON makes lists and dictionaries hashable; `default=str` is for what a broken configuration may hold.
        groups.setdefault(json.dumps(_background(run, exhibit, everywhere), default=str), []).append(run)
    blocks = [_block(exhibit, group, everywhere) for group in groups.values()]
    # A stray run that happens to fit one cell does not measure a table; a few curves of a figure compare nothing,
    # unless they are one of its panels: of eight networks one is measured as well as all.
    drawn = exhibit.kind in ("curves", "layers")
    # Rounded up.
    part = -(-len(exhibit.cells) // (2 if drawn else 5))
    least = min(len(exhibit.cells), part if drawn else max(2, part))
    rows_tell = exhibit.kind in ("table", "curves")
    told = [b for b in blocks if len(b.cells) >= max(1, least) or (rows_tell and _has_whole_row(b))]
    # `sorted` is stable: blocks with equally many cells stay in the order of their runs.
    return sorted(told, key=lambda block: -len(block.cells))


def _joined(exhibit: Exhibit, runs: Sequence[Run]) -> Exhibit:
    """Return an exhibit that others may join with a column for each method of the runs that none of its own is of."""
    if not exhibit.others:
        return exhibit
    known = {cell.match.get("algorithm") for cell in exhibit.cells}
    names = sorted({str(run.value("algorithm")) for run in runs} - known)
    rows: dict[str, Mapping[str, Any]] = {}
    for cell in exhibit.cells:
        # What all cells of a row have in common picks the row.
        before = rows.get(cell.row, cell.match)
        rows[cell.row] = {key: value for key, value in before.items() if cell.match.get(key) == value}
    cells = [
        Cell(row, name, {**match, "algorithm": name}, None)
        for name in names
        for row, match in rows.items()
        if any(_matches(run, {**match, "algorithm": name}) for run in runs)
    ]
    joining = dict.fromkeys(cell.column for cell in cells)
    return replace(exhibit, columns=[*exhibit.columns, *joining], cells=[*exhibit.cells, *cells])


def _has_whole_row(block: Block) -> bool:
    """Return whether some row of three cells or more was measured from end to end."""
    rows: dict[str, list[str]] = {}
    for cell in block.exhibit.cells:
        rows.setdefault(cell.row, []).append(cell.id)
    return any(len(names) > 2 and all(name in block.cells for name in names) for names in rows.values())


def _background(run: Run, exhibit: Exhibit, everywhere: set[str]) -> dict[str, Any]:
    """Return the setting that all cells share, without what tells cells apart and what only some methods have."""
    own = setting(run)
    # The method is never part of the setting: a table compares methods.
    apart = exhibit.picked | _alias(exhibit.picked) | set(exhibit.tuned) | set(exhibit.differ) | {"algorithm"}
    shared = {key for key in everywhere if key not in apart and not _of_picked(key, exhibit.picked)}
    return {"scale": run.config.get("scale")} | {key: own[key] for key in sorted(shared)}


def _of_picked(key: str, picked: frozenset[str]) -> bool:
    """Return whether a key is of a model or dataset that cells differ in; how much of the data counts all the same."""
    group, _, rest = key.partition(".")
    of_data = rest.startswith("limit_") or rest == "validation"
    return group in ("model", "dataset") and group in picked and not of_data


def _alias(keys: frozenset[str]) -> set[str]:
    # `workers` of the summary and `cluster.workers` are one setting; a method can bring its own number.
    return {"cluster.workers"} if "workers" in keys or "algorithm" in keys else set()


def _block(exhibit: Exhibit, runs: list[Run], everywhere: set[str]) -> Block:
    cells = {}
    chosen_values = []
    for cell in exhibit.cells:
        mine = [run for run in runs if run.rows and _matches(run, cell.match)]
        if mine:
            counting, left_out = _one_setting(exhibit, mine)
            groups = [one_per_seed(group) for group in by_seed(counting, apart=exhibit.tuned)]
            chosen_values += [f"{cell.id}: {line}" for line in left_out]
            # Of a tuned setting the paper shows the best value, so the best of ours stands beside it.
            metric = metrics.chosen_by(exhibit.metric, counting)
            chosen = min(groups, key=lambda group: _worth(group, metric))
            if exhibit.tuned and len(groups) > 1:
                best = ", ".join(f"{key}={shown(chosen[0].value(key))}" for key in exhibit.tuned)
                by = "" if metric == exhibit.metric else f" by {metrics.name(metric)}"
                chosen_values.append(f"{cell.id}: {best}, the best of {len(groups)}{by}")
            cells[cell.id] = Measured(cell, chosen, _by_seed(chosen, exhibit.metric))
    by_cell = {name: [r for r in measured.runs if r.ended] for name, measured in cells.items()}
    verdicts = [judge(claim, by_cell, exhibit.numbers) for claim in exhibit.claims]
    deviations = _deviations(exhibit, cells) + _gaps(exhibit.metric, cells)
    return Block(exhibit, cells, runs[0].config.get("scale"), deviations, verdicts, chosen_values)


def _by_seed(runs: Sequence[Run], metric: str) -> dict[int, float]:
    # A run that has made only half of its length does not measure the cell; its curve is drawn.
    found = ((run.seed, metrics.measured(run, metric)) for run in runs if run.ended)
    return {seed: value for seed, value in found if seed is not None and value is not None}


def _one_setting(exhibit: Exhibit, runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Choose the runs of a cell that differ in the seed and in tuned settings alone.

    A method's own keys are not in the block's setting, so a cell may hold runs that differ in them, as DDG with and
    without gradients of zero at its start. Taken together, two such runs of a seed would be one, and two seeds a mean.

    Returns:
        The runs nearest to the paper's setting; of equally near ones those with most seeds, then the latest; and a
        line for each other setting.
    """
    # A run of an older version lacks the keys that came later, and is not kept apart by them.
    everywhere = set.intersection(*(set(setting(run)) for run in runs)) - set(exhibit.tuned)
    variants = by_seed(runs, apart=sorted(everywhere))

    def rank(variant: list[Run]) -> tuple[int, int]:
        unlike = [key for key, paper in exhibit.setting.items() if _deviates(variant[0], key, paper)]
        return len(unlike), -len({run.seed for run in variant if run.ended})

    # Reversed, since `min` returns the first of equals, and later runs come later.
    best = min(reversed(variants), key=rank)
    lines = []
    for other in (variant for variant in variants if variant is not best):
        keys = [key for key in differing([best[0], other[0]]) if key in everywhere]
        own, left = (", ".join(f"{key}={shown(setting(run)[key])}" for key in keys) for run in (best[0], other[0]))
        lines.append(f"{own}; runs with {left} are left out")
    return best, lines


def _worth(runs: list[Run], metric: str) -> tuple[bool, bool, int, int, float]:
    """Return a key that sorts values: ended first, with a value, with more seeds, fewer missing, the better mean."""
    counting = averaged(runs)
    values = [value for run in counting if (value := metrics.measured(run, metric)) is not None]
    mean = statistics.fmean(values) if values else 0.0
    worse = mean * (-1.0 if metrics.largest_is_best(metric) else 1.0)
    # With as many seeds: of values that one seed alone has tried, others went on with a better one.
    # False sorts before True, so each part reads "has a flaw". `averaged` returns either ended runs alone or none
    # of them, so that the first stands for all.
    return not counting[0].ended, not values, -len(counting), len(counting) - len(values), worse


def _deviations(exhibit: Exhibit, cells: Mapping[str, Measured]) -> list[str]:
    lines = []
    for key, paper in exhibit.setting.items():
        values: dict[str, list[str]] = {}
        for name, measured in cells.items():
            # What picks the cell is not its deviation; one of several values that do can be.
            picked = key in measured.cell.match and not isinstance(measured.cell.match[key], Mapping)
            for run in () if picked else measured.runs:
                # A method that lacks the key does not deviate from it.
                if _deviates(run, key, paper):
                    values.setdefault(shown(run.value(key)), []).append(name)
        for own, names in values.items():
            # A deviation that all cells share is one of the whole table, and naming each cell would say nothing more.
            where = "" if len(set(names)) == len(cells) else f" ({'; '.join(dict.fromkeys(names))})"
            lines.append(f"{key}={own} instead of {_allowed(paper)}{where}")
    statuses = {m: run.status for m, c in cells.items() for run in c.runs if run.status != COMPLETED}
    lines += [f"{name}: a run is {status}" for name, status in statuses.items()]
    return lines


def _deviates(run: Run, key: str, paper: Any) -> bool:
    known = key in run.flat or run.value(key) is not None
    return known and not _fits(run, run.value(key), paper)


def _allowed(paper: Any) -> str:
    return " or ".join(map(shown, paper["any"])) if isinstance(paper, Mapping) and "any" in paper else shown(paper)


def _gaps(metric: str, cells: Mapping[str, Measured]) -> list[str]:
    """Return a line for each cell whose mean is over a part of its seeds."""
    partial = {name: measured.lacking for name, measured in cells.items() if measured.values and measured.lacking}
    return [f"{name}: no {metric} of {seeds_named(seeds)}" for name, seeds in partial.items()]


def _matches(run: Run, wanted: Mapping[str, Any]) -> bool:
    return all(_fits(run, run.value(key), value) for key, value in wanted.items())


def _fits(run: Run, own: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping) and "any" in wanted:
        return any(_same(own, value) for value in wanted["any"])
    # `{of: workers, times: 2}`: fits runs whose value is in a fixed relation to another one of theirs.
    if isinstance(wanted, Mapping):
        other = finite(run.value(wanted["of"]))
        return other is not None and _same(own, wanted["times"] * other)
    return _same(own, wanted)


def _same(own: Any, wanted: Any) -> bool:
    if isinstance(own, list) and isinstance(wanted, list):
        return len(own) == len(wanted) and all(map(_same, own, wanted))
    # Before numbers: True equals 1 in Python.
    if isinstance(own, bool) or isinstance(wanted, bool):
        return own is wanted
    if isinstance(own, int | float) and isinstance(wanted, int | float):
        # Written by hand in a yaml, a number need not be the run's to the last bit.
        return math.isclose(own, wanted, rel_tol=1e-9)
    return own == wanted
