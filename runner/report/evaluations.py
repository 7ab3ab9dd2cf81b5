"""Which rows of several runs are the same evaluation: only those can be averaged, or drawn as one place of a mean."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from runner.report.run import finite
from runner.run_folder import columns


def numbered(series: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[int]]:
    """Number the rows of runs; rows of the same evaluation get the same number.

    An evaluation is made at the first update after so many effective passes, which can be some samples later in one run
    than in another: rows of different runs that lie less than an update apart are one evaluation; rows with the very
    same passes are matched before others. Runs may be evaluated at different intervals. Rows without passes follow the
    row before.

    Args:
        series: the rows of each run, in their order, with `epoch` and `updates`.

    Returns:
        for each run the numbers of its rows: all from 0 to the largest occur, in the order of the passes, and none
        twice in a run.
    """
    places: dict[tuple[float, int], dict[int, int]] = {}
    for run, rows in enumerate(series):
        passes, seen = 0.0, Counter[float]()
        for place, row in enumerate(rows):
            known = finite(row.get(columns.EPOCH))
            passes = passes if known is None else known
            # Rows of one run at the same passes, as those without any, are evaluations of
            # their own: the key counts them.
            places.setdefault((passes, seen[passes]), {})[run] = place
            seen[passes] += 1
    numbers = [[0] * len(rows) for rows in series]
    number, first, within = -1, 0.0, 0.0
    members: set[int] = set()
    # A sweep from left to right. A group ends if it has a row of the run already, or if an update's
    # worth of passes is over, counted from the group's first row: counted from its last one, a chain
    # of close rows would join rows far apart.
    for (passes, _), found in sorted(places.items()):
        if number < 0 or members & found.keys() or passes - first >= within:
            number, first, members = number + 1, passes, set()
            within = max(_update(series[run][place]) for run, place in found.items())
        members |= found.keys()
        for run, place in found.items():
            numbers[run][place] = number
    return numbers


def thinned(numbers: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Choose the rows of runs that are drawn: of a run that has too many, those that most of the runs have.

    Args:
        numbers: of the rows of each run; see `numbered`.
        most: how many rows a run may have before it is thinned; of a longer run as many stay, and its first and last.

    Returns:
        for each run the places of the rows that stay, in their order.
    """
    shared = Counter(number for own in numbers for number in own)
    best: dict[int, int] = {}
    for number in sorted(shared):
        # Parts of the common numbering, not of each run's own rows: so the runs keep the same evaluations as far as
        # they have them, and the page can still average them.
        part = number * most // len(shared)
        if part not in best or shared[number] > shared[best[part]]:
            best[part] = number
    kept = []
    for own in numbers:
        chosen: dict[int, int] = {}
        for place, number in enumerate(own):
            part = number * most // len(shared)
            if part not in chosen or number == best[part]:
                chosen[part] = place
        # The ends stay: the last point is the run's result.
        kept.append(sorted({0, *chosen.values(), len(own) - 1}) if len(own) > most else list(range(len(own))))
    return kept


def _update(row: Mapping[str, Any]) -> float:
    """Return a little less than the passes of one update: rows a whole update apart are two evaluations."""
    passes, updates = finite(row.get(columns.EPOCH)), finite(row.get(columns.UPDATES))
    # The margin is for rounding: two evaluations exactly one update apart differ by a little more or less in floats.
    return passes / updates * (1 - 1e-6) if passes and updates else 0.0
