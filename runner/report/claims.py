"""Claims of a paper, judged by runs: paired by seed, with a confidence interval.

A claim compares metrics of cells, or a metric and a number:

    final_test_error[dc_asgd_a, M=8] < final_test_error[asgd, M=8]
    seconds[asgd, M=8] < 0.9 * seconds[ssgd, M=8]
    abs(final_test_error[dc_asgd_c, M=4] - final_test_error[sgd, M=1]) < 0.5
    final_train_loss[dasgd, m=256] - final_train_loss[dasgd, m=2] > 0.2
    seconds_to(duality_gap,1e-4)[dis_dfsdca, M=4] < seconds_to(duality_gap,1e-4)[cocoa_plus, M=4]
    seconds[asgd, M=1] / seconds[asgd, M=8] > seconds[ssgd, M=1] / seconds[ssgd, M=8]

or says how far the bounds of a table's rows are apart, its columns being numbers:

    decades_between_bounds(epochs_to_target) > 0.5
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.report import metrics, power
from runner.report.bounds import Bounds, is_positive
from runner.report.published import Claim, Numbers
from runner.report.run import Run

ROUNDING = 1e-12
"""Differences that are this small beside what is compared are shown as none."""
UNMEASURED = "not measured"
WORDS = ("holds", "fails", "undecided", UNMEASURED)
# A metric with arguments in parentheses, a cell in brackets; cells' names hold commas and blanks.
_MEASURED = r"(\w+(?:\([\w.,-]+\))?)\[([^\]]+)\]"
# A side: a factor, what was measured of a cell, perhaps over what was measured of another one (a speed-up).
_SIDE = rf"(?:([\d.]+) ?\* ?)?{_MEASURED}(?: / {_MEASURED})?"
_GROUPS = 5
_COMPARED = re.compile(rf"{_SIDE} (<=|<|>=|>) (?:{_SIDE}|([\d.]+(?:e-?\d+)?))")
_CLOSE = re.compile(rf"abs\({_SIDE} - {_SIDE}\) < ([\d.]+)")
_APART = re.compile(rf"{_SIDE} - {_SIDE} (<=|<|>=|>) ([\d.]+)")
_BETWEEN_BOUNDS = re.compile(r"decades_between_bounds\((\w+)\) > ([\d.]+)")


@dataclass(frozen=True)
class Verdict:
    """What runs say about a claim.

    Attributes:
        claim: the claim.
        word: one of `WORDS`.
        because: the mean difference (left minus right), its interval, and the seeds; or what is missing.
        could: whether these runs could have shown the opposite, in words; empty where nothing was compared.
        needed: how many seeds would decide what is undecided, in words; empty where that cannot be told.
    """

    claim: Claim
    word: str
    because: str
    could: str = ""
    needed: str = ""


@dataclass(frozen=True)
class _Rule:
    """What a claim says of the difference of its sides: that it is below or above a bound, or closer to 0 than it."""

    sign: str
    bound: float = 0.0

    def word(self, low: float, high: float) -> str:
        """Return the verdict on an interval of the difference."""
        if self.sign == "close":
            return _inside(low, high, self.bound)
        return _one_sided(low - self.bound, high - self.bound, self.sign.startswith("<"))

    def distance(self, mean: float) -> float:
        """Return how far a difference is from the bound."""
        return abs(abs(mean) - self.bound) if self.sign == "close" else abs(mean - self.bound)


@dataclass(frozen=True)
class _Term:
    factor: float
    metric: str
    cell: str
    divisor: "_Term | None" = None

    def by_seed(self, cells: Mapping[str, Sequence[Run]]) -> dict[int, float]:
        values = {}
        for run in cells.get(self.cell, ()):
            value = metrics.measured(run, self.metric)
            # A run without a seed cannot be paired with one of the other side.
            if run.seed is not None and value is not None:
                values[run.seed] = self.factor * value
        if self.divisor is None:
            return values
        # Both cells of a ratio have the same seed as well: a speed-up is of one start and one order of samples.
        below = self.divisor.by_seed(cells)
        return {seed: value / below[seed] for seed, value in values.items() if below.get(seed)}

    def lacking(self, cells: Mapping[str, Sequence[Run]]) -> list[int]:
        """Return the seeds that have no value."""
        having = self.by_seed(cells)
        return sorted(run.seed for run in cells.get(self.cell, ()) if run.seed not in (None, *having))

    def published(self, paper: Numbers) -> float | None:
        """Return what the paper's numbers make of it, None if it has none."""
        value = paper.of(self.metric, self.cell)
        below = 1.0 if self.divisor is None else paper.of(self.divisor.metric, self.divisor.cell)
        return self.factor * value / below if value is not None and below else None

    @property
    def place(self) -> str:
        """Its cell, or both cells of a ratio."""
        return self.cell if self.divisor is None else f"{self.cell} over {self.divisor.cell}"


_NOTHING = Numbers("", {})


def judge(claim: Claim, cells: Mapping[str, Sequence[Run]], paper: Numbers = _NOTHING) -> Verdict:
    """Judge a claim.

    The difference of the two sides is taken per seed that both have; its two-sided 95 % interval is Student's t. A
    claim holds if the whole interval is on its side, fails if the whole interval is on the other. One seed decides
    nothing, nor do cells that some seeds have no value for: the seeds that have one are not chosen by chance. Seeds
    measure the spread over initial weights and sampling, not over test sets.

    Args:
        claim: the claim.
        cells: the runs of each cell that ended, by the cell's name.
        paper: the paper's numbers, beside which the width of the interval is seen.

    Raises:
        ValueError: for a claim that cannot be read.
    """
    # `fullmatch`, since a claim that was read only up to a typing error would be judged as another claim.
    if close := _CLOSE.fullmatch(claim.text):
        left, right = _term(close.groups()[:_GROUPS]), _term(close.groups()[_GROUPS:-1])
        return _compare(claim, left, right, cells, _Rule("close", float(close[2 * _GROUPS + 1])), paper)
    if apart := _APART.fullmatch(claim.text):
        left, right = _term(apart.groups()[:_GROUPS]), _term(apart.groups()[_GROUPS : 2 * _GROUPS])
        return _compare(claim, left, right, cells, _Rule(apart.groups()[-2], float(apart.groups()[-1])), paper)
    if bounds := _BETWEEN_BOUNDS.fullmatch(claim.text):
        if wrong := [column for name in cells if not is_positive(column := name.partition(", ")[0])]:
            raise ValueError(f"claim={claim.text}: {wrong[0]} is not a number; allowed: columns that are, as 1e-2")
        return _compare(claim, Bounds(bounds[1]), float(bounds[2]), cells, _Rule(">"), paper)
    if not (found := _COMPARED.fullmatch(claim.text)):
        raise ValueError(f"claim={claim.text}: cannot be read; allowed: metric[cell] < metric[cell]")
    # The groups: the left side's, the sign, the right side's, the number that may stand in its place.
    left, sign, number = _term(found.groups()[:_GROUPS]), found[_GROUPS + 1], found.groups()[-1]
    right = float(number) if number else _term(found.groups()[_GROUPS + 1 : -1])
    return _compare(claim, left, right, cells, _Rule(sign), paper)


def counted(verdicts: Sequence[Verdict]) -> list[int]:
    """Return how many claims have each of `WORDS` as their verdict."""
    return [sum(verdict.word == word for verdict in verdicts) for word in WORDS]


def seeds_named(seeds: Sequence[int]) -> str:
    """Return seeds in words."""
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % confidence interval of the mean of at least two differences."""
    # The paired t-test is the one-sample test of the differences, and this the interval of their mean.
    mean = statistics.fmean(differences)
    half = power.half_width(statistics.stdev(differences), len(differences))
    return mean - half, mean + half


def _compare(
    claim: Claim,
    left: _Term | Bounds,
    right: _Term | float,
    cells: Mapping[str, Sequence[Run]],
    rule: _Rule,
    paper: Numbers,
) -> Verdict:
    # Paired by seed: both sides then have the same initial weights and order of samples, so only the method differs.
    ours = left.by_seed(cells)
    # A bare number is the same for every seed, so it pairs with each seed that the left side has.
    theirs = right.by_seed(cells) if isinstance(right, _Term) else dict.fromkeys(ours, right)
    sides = (left, right) if isinstance(right, _Term) else (left,)
    # Not strict: a number has no cell, so `sides` may be shorter by one.
    missing = [side for side, values in zip(sides, (ours, theirs), strict=False) if not values]
    if missing:
        return Verdict(claim, UNMEASURED, "no " + " and no ".join(f"{s.metric} of {s.place}" for s in missing))
    # A seed without a value may be one that diverged: leaving it out would favour that side.
    gaps = {f"no {s.metric} of {seeds_named(seeds)} of {s.place}": None for s in sides if (seeds := s.lacking(cells))}
    if gaps:
        return Verdict(claim, "undecided", " and ".join(gaps))
    # A seed that only one side was run with is no gap: nobody tried it on the other side.
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return Verdict(claim, UNMEASURED, "the two sides have no seed in common")
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    mean = statistics.fmean(differences)
    # One difference has no spread, and so no interval.
    if len(seeds) == 1:
        return Verdict(claim, "undecided", f"difference {_signed(mean)}, seed {seeds[0]} alone", "no: one seed")
    low, high = interval(differences)
    # What is far smaller than both sides is rounding; how small that is depends on what is compared.
    scale = max(abs(value) for side in (ours, theirs) for value in side.values())
    mean, low, high = (0.0 if abs(value) < ROUNDING * scale else value for value in (mean, low, high))
    because = f"difference {_signed(mean)}, 95 % interval {_signed(low)} to {_signed(high)}, {len(seeds)} seeds"
    word = rule.word(low, high)
    could = _could_show(left, right, [theirs[seed] for seed in seeds], (high - low) / 2, rule, paper)
    needed = _needed(statistics.stdev(differences), rule.distance(mean)) if word == "undecided" else ""
    return Verdict(claim, word, because, could, needed)


def _could_show(
    left: _Term | Bounds, right: _Term | float, theirs: Sequence[float], half: float, rule: _Rule, paper: Numbers
) -> str:
    """Say whether an interval that wide could have shown the opposite, if the paper's difference were here."""
    if rule.sign == "close":
        return power.could_show(half, rule.bound, "the bound")
    margin = None
    if isinstance(left, _Term):
        ours = left.published(paper)
        other = right.published(paper) if isinstance(right, _Term) else right
        if ours is not None and other is not None:
            expected = power.expected_difference(ours, other, theirs, left.metric)
            margin = None if expected is None else expected - rule.bound
    return power.could_show(half, margin, "the paper's difference" + (" beyond the bound" if rule.bound else ""))


def _needed(deviation: float, distance: float) -> str:
    found = power.seeds_needed(deviation, distance)
    return f"more than {power.MOST_SEEDS} seeds would" if found is None else f"{found} seeds would"


# An interval that touches the bound leaves it open, so every comparison below is strict. Of a continuous difference `<`
# and `<=` say the same.
def _one_sided(low: float, high: float, below: bool) -> str:
    """Return whether an interval lies below 0, or above it."""
    # "Greater" is "less" of the mirrored interval.
    low, high = (low, high) if below else (-high, -low)
    return "holds" if high < 0 else "fails" if low > 0 else "undecided"


def _inside(low: float, high: float, bound: float) -> str:
    if -bound < low and high < bound:
        return "holds"
    return "fails" if low > bound or high < -bound else "undecided"


def _term(parts: Sequence[str | None]) -> _Term:
    factor, metric, cell, metric_below, cell_below = parts
    # The pattern matches these two groups whenever it matches at all; the factor and the ratio are optional.
    assert metric is not None
    assert cell is not None
    below = _Term(1.0, metric_below, cell_below) if metric_below and cell_below else None
    return _Term(float(factor or 1), metric, cell, below)


def _signed(value: float) -> str:
    if value == 0:
        return "0"
    return f"{'+' if value > 0 else ''}{power.number(value)}"
