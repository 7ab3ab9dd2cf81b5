"""Numbers of a run that tables show and claims compare."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence

from runner.report.run import Run, finite
from runner.run_folder import columns
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    FINAL_TEST_ERROR,
    FINAL_VALIDATION_ERROR,
    TEST_ERROR_AT_BEST,
)

_OF_LAYER = re.compile(r"(early|lowest|final)_(\w+)\(([\w.]+)\)")
_REACHES = re.compile(r"reaches\((\w+),([\d.]+(?:e-?\d+)?)\)")
# Without a column the target is one of the test error, which most papers mean.
_TO_REACH = re.compile(r"(epochs|seconds|updates)_to\((?:(\w+),)?([\d.]+(?:e-?\d+)?)\)")
_AFTER = re.compile(r"(\w+)_after\((0?\.\d+)\)")
_RISES = re.compile(r"rises\((\w+),(0?\.\d+)\)")
# Fractions, from the errors in percent.
_ACCURACIES = {"accuracy": columns.TEST_ERROR, "accuracy_top5": columns.TEST_ERROR_TOP5}

# Name and digits of what is shown often; others are shown under their own name with four significant digits.
_SHOWN = {
    FINAL_TEST_ERROR: ("test error, %", 2),
    BEST_TEST_ERROR: ("best test error, %", 2),
    FINAL_VALIDATION_ERROR: ("validation error, %", 2),
    BEST_VALIDATION_ERROR: ("best validation error, %", 2),
    TEST_ERROR_AT_BEST: ("test error at the best validation error, %", 2),
    "final_train_error": ("training error, %", 2),
    "final_train_loss": ("training loss", 4),
    "final_accuracy": ("test accuracy", 4),
    "best_accuracy": ("best test accuracy", 4),
    "final_accuracy_top5": ("top-5 test accuracy", 4),
    "final_test_loss": ("test loss", 4),
    "seconds": ("seconds", 1),
    "seconds_per_epoch": ("seconds per effective pass", 2),
    "samples_per_virtual_second": ("samples per second of the run's clock", 1),
    columns.BYTES_SENT: ("bytes sent", 0),
    columns.EPOCH: ("effective passes", 1),
    columns.TEST_ERROR: ("test error, %", 2),
    columns.TRAIN_ERROR: ("training error, %", 2),
    columns.TEST_LOSS: ("test loss", 4),
    columns.VALIDATION_ERROR: ("validation error, %", 2),
    columns.VALIDATION_LOSS: ("validation loss", 4),
    columns.TRAIN_LOSS: ("training loss", 4),
    columns.TEST_PERPLEXITY: ("test perplexity", 3),
    columns.VALIDATION_PERPLEXITY: ("validation perplexity", 3),
    f"final_{columns.TEST_PERPLEXITY}": ("test perplexity", 3),
    f"final_{columns.VALIDATION_PERPLEXITY}": ("validation perplexity", 3),
    columns.LR: ("learning rate", 4),
    "accuracy": ("test accuracy", 4),
    "accuracy_top5": ("top-5 test accuracy", 4),
    "largest_rate": ("largest usable learning rate", 4),
}

_LARGE = 1000
_SMALLEST = -4  # powers of ten below it are written as such


def measured(run: Run, metric: str) -> float | None:
    """Return a metric of a run.

    Args:
        run: the run.
        metric: a number of the summary; `final_<column>` or `lowest_<column>` of the metrics; `final_accuracy`,
            `best_accuracy`, `final_accuracy_top5` (fractions, from the test errors); `<column>_after(F)`: at the first
            evaluation after the share F of `run.epochs`; `rises(<column>,F)`: the sum of a column's rises from one
            evaluation to the next up to that share, 0 of a curve that only falls; `seconds_per_epoch`;
            `samples_per_virtual_second` (of the run's own clock); `early_<quantity>(<layer>)`, `lowest_…` and
            `final_…`: of a layer at the first evaluation, at the lowest, at the last; `reaches(<column>,X)`: 1 if a
            column of the metrics is ever X or below, else 0, also of a run that diverged;
            `epochs_to(E)`, `seconds_to(E)` and `updates_to(E)`: until the test error is E percent;
            `epochs_to(<column>,X)` and the like: until a column of the metrics is X, as `seconds_to(duality_gap,1e-4)`.

    Returns:
        the number; None if the run has none (`*_to`: if it never came so far).
    """
    # The summary first: what the run itself says of its end.
    if (number := run.number(metric)) is not None:
        return number
    if reach := _TO_REACH.fullmatch(metric):
        along = {"epochs": columns.EPOCH, "seconds": columns.SECONDS, "updates": columns.UPDATES}[reach[1]]
        return reached(run, reach[2] or columns.TEST_ERROR, float(reach[3]), along)
    if target := _REACHES.fullmatch(metric):
        # A column that the run does not have is not measured, while a diverged run's has no number and is not reached.
        known = any(target[1] in row for row in run.rows)
        return float(reached(run, target[1], float(target[2]), columns.EPOCH) is not None) if known else None
    if after := _AFTER.fullmatch(metric):
        return _after(run, after[1], float(after[2]))
    if rises := _RISES.fullmatch(metric):
        return _rises(run, rises[1], float(rises[2]))
    if of_layer := _OF_LAYER.fullmatch(metric):
        return _of_layer(run, *of_layer.groups())
    if metric in ("final_accuracy", "best_accuracy"):
        error = run.number(metric.replace("accuracy", columns.TEST_ERROR))
        return None if error is None else (100 - error) / 100
    seconds = _last(run, columns.SECONDS)
    # From the last row, not from the summary: the row's seconds and passes were taken at the same moment.
    if metric == "seconds_per_epoch":
        epochs = _last(run, columns.EPOCH)
        return seconds / epochs if seconds is not None and epochs else None
    if metric == "samples_per_virtual_second":
        samples = _last(run, columns.SAMPLES)
        return samples / seconds if samples is not None and seconds else None
    # Last, because this reading fits any name with an underscore, those above included.
    how, _, key = metric.partition("_")
    if how == "final":
        return _last(run, key)
    if how == "lowest":
        return min((value for value in column(run, key) if value is not None), default=None)
    return None


def chosen_by(metric: str, runs: Iterable[Run]) -> str:
    """Return the metric by which the best of some settings is chosen: not by the test set if there is another split.

    Args:
        metric: what is shown.
        runs: those of the settings.

    Returns:
        the same metric of the validation split (an error for an accuracy) if all runs have one; else `metric`.
    """
    if not all(run.flat.get("dataset.validation") is not None for run in runs):
        return metric
    chosen = re.sub(r"accuracy|test_error", columns.VALIDATION_ERROR, metric)
    chosen = chosen.replace(columns.TEST_PERPLEXITY, columns.VALIDATION_PERPLEXITY)
    return chosen.replace(columns.TEST_LOSS, columns.VALIDATION_LOSS)


def largest_is_best(metric: str) -> bool:
    """Return whether a larger value is a better one: of accuracies and speeds."""
    return "accuracy" in metric or metric.startswith("samples_per")


def reached(run: Run, column: str, target: float, along: str) -> float | None:
    """Return where a falling column is first at a target or below; None if it never is."""
    for value, place in zip(run.curve(column), run.curve(along), strict=True):
        # The evaluation itself, not interpolated between two: a paper's reader would read it off the same way.
        if value is not None and value <= target:
            return place
    return None


def name(metric: str) -> str:
    """Return a metric in words, with its unit."""
    return _SHOWN.get(metric, (metric.replace("_", " "), 4))[0]


def text(metric: str, value: float | None) -> str:
    """Return a value with the digits that its metric deserves; a dash if there is no value."""
    if value is None:
        return "–"
    if metric in _SHOWN:
        return f"{value:.{_SHOWN[metric][1]}f}"
    # Four digits of a large number would be written with an exponent, which nobody reads at a glance.
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def with_spread(metric: str, mean: float | None, spread: float | None) -> str:
    """Return `mean ± spread`, both with as many decimals; the mean alone if there is no spread."""
    if mean is None or spread is None:
        return text(metric, mean)
    if metric in _SHOWN or mean == 0:
        return f"{text(metric, mean)} ± {text(metric, spread)}"
    magnitude = math.floor(math.log10(abs(mean)))
    if magnitude < _SMALLEST:
        # One power of ten for both: nobody compares 1.2e-05 with 7.5e-06 at a glance.
        unit = 10.0**magnitude
        return f"({mean / unit:.3f} ± {spread / unit:.3f})e{magnitude:03d}"
    places = _places([mean, spread])
    return f"{mean:,.{places}f} ± {spread:,.{places}f}"


def aligned(values: Sequence[float | None]) -> list[str]:
    """Return a column of numbers with as many decimals each, four digits of the largest; a dash for None."""
    places = _places([value for value in values if value is not None])
    return ["–" if value is None else f"{value:,.{places}f}" for value in values]


def _places(values: Sequence[float]) -> int:
    """Return how many decimals give the largest four digits, less those that are zeros in all of them."""
    largest = max(map(abs, values), default=0.0)
    places = 0 if largest == 0 else max(0, 3 - math.floor(math.log10(largest)))
    while places and all(round(value, places) == round(value, places - 1) for value in values):
        places -= 1
    return places


def decimals(metric: str) -> int | None:
    """Return how many decimals a column of this metric has; None if its values have digits of their own."""
    return _SHOWN[metric][1] if metric in _SHOWN else None


def seeds_counted(having: int, seeds: int) -> str:
    """Return how many of the seeds a mean is over, in words; empty if it is over all of them."""
    return "" if having == seeds else f" ({having} of {seeds} seeds)"


def column(run: Run, key: str) -> list[float | None]:
    """Return a column of the metrics, or `accuracy` or `accuracy_top5` (fractions, from the test errors)."""
    if key in _ACCURACIES:
        return [None if error is None else (100 - error) / 100 for error in run.curve(_ACCURACIES[key])]
    return run.curve(key)


def _after(run: Run, key: str, share: float) -> float | None:
    end = _passes_asked(run)
    for value, passes in zip(column(run, key), run.curve(columns.EPOCH), strict=True):
        if end is not None and passes is not None and passes >= share * end:
            return value
    return None


def _rises(run: Run, key: str, share: float) -> float | None:
    end = _passes_asked(run)
    along = zip(column(run, key), run.curve(columns.EPOCH), strict=True)
    values = [value for value, passes in along if end is not None and passes is not None and passes <= share * end]
    # A run that diverges has rows without a number: a sum over the others would call it steady.
    known = [value for value in values if value is not None]
    # One evaluation can neither rise nor fall.
    if len(known) < max(2, len(values)):
        return None
    return sum(max(0.0, later - earlier) for earlier, later in itertools.pairwise(known))


def _passes_asked(run: Run) -> float | None:
    # What was asked for, not the last row's: of a run that diverged that would be a share of another length.
    return finite(run.value("run.epochs"))


def _of_layer(run: Run, how: str, quantity: str, layer: str) -> float | None:
    # Only the rows that have this quantity: rows of several diagnostics share the file.
    values = [value for row in run.layers(quantity) if (value := finite(row[quantity].get(layer))) is not None]
    if not values:
        return None
    return {"early": values[0], "lowest": min(values), "final": values[-1]}[how]


def _last(run: Run, key: str) -> float | None:
    return column(run, key)[-1] if run.rows else None
