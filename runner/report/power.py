"""What seeds can decide: how many it takes, and whether they could have shown the opposite of what a paper says.

All is said of the 95 % interval of Student's t around the mean difference, paired by seed (`runner.report.claims`).
"""

import functools
import math
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.95
MOST_SEEDS = 1000
"""Nobody runs more; a difference that needs more is none for any purpose."""


def half_width(deviation: float, seeds: int) -> float:
    """Return half of the width of the interval around the mean of differences with this standard deviation."""
    return _quantile(seeds) * deviation / math.sqrt(seeds)


@functools.cache
def _quantile(seeds: int) -> float:
    # Kept: a report of many claims asks for those of the same thousand numbers tens of thousands of times.
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1))


def seeds_needed(deviation: float, distance: float) -> int | None:
    """Return how many seeds would decide, if their mean and standard deviation stayed as they are.

    Args:
        deviation: the standard deviation of the differences.
        distance: from their mean to the bound that decides.

    Returns:
        the smallest number whose interval does not reach the bound; None if more than `MOST_SEEDS` do not suffice.
    """
    enough = (seeds for seeds in range(2, MOST_SEEDS + 1) if half_width(deviation, seeds) < distance)
    return next(enough, None)


def expected_difference(left: float, right: float, ours: Sequence[float], metric: str) -> float | None:
    """Return the difference that the paper's would be here: relative to its right side, times ours.

    Of accuracies the errors are compared, since .94 and .95 differ by a sixth of what is wrong, not by a hundredth.

    Args:
        left: the paper's number of the left side.
        right: that of the right side.
        ours: what was measured on the right side.
        metric: what they are; accuracies are fractions.

    Returns:
        the difference, left minus right; None if it is relative to nothing.
    """
    mean = math.fsum(ours) / len(ours)
    whole, scale = (1 - right, 1 - mean) if "accuracy" in metric else (right, mean)
    return (left - right) / whole * scale if whole else None


def could_show(half: float, margin: float | None, what: str) -> str:
    """Say whether an interval is narrow enough to have shown the opposite of a claim.

    Args:
        half: half of its width.
        margin: how far the paper's difference would lie from the bound that decides; None if the paper has no numbers.
        what: the margin in words.
    """
    if margin is None:
        return f"±{number(half)}; the paper gives no number"
    return f"{'yes' if half < abs(margin) else 'no'}: ±{number(half)} against {what} of {number(abs(margin))}"


def number(value: float) -> str:
    """Return a difference as it is shown: two decimals, or two digits of a smaller one."""
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
