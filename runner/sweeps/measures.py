"""What the table of a sweep shows of its jobs: errors, or what such runs have in their place."""

from collections.abc import Mapping, Sequence
from typing import Any

from runner.run_folder import columns
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    EPOCH_SECONDS,
    FINAL_TEST_ERROR,
    TEST_ERROR_AT_BEST,
    TIMING_ONLY,
    VIRTUAL_SAMPLES,
)
from runner.run_folder.timing_result import number_text

ERRORS = {FINAL_TEST_ERROR: "test error %", BEST_TEST_ERROR: "best %"}
TIMES = {
    EPOCH_SECONDS: "virtual s an epoch",
    VIRTUAL_SAMPLES: "samples / virtual s",
    columns.STALENESS_MEAN: "staleness",
    columns.STALENESS_MAX: "max",
}
"""Of runs of the clock alone."""
_KINDS = (
    {BEST_VALIDATION_ERROR: "best validation error %", TEST_ERROR_AT_BEST: "test error % then"},
    ERRORS,
    {columns.SUBOPTIMALITY: "suboptimality"},
    {"final_train_loss": "train loss"},
    TIMES,
)
# What has a fixed number of places; the rest may be tiny or huge.
_TWO_PLACES = {BEST_VALIDATION_ERROR, TEST_ERROR_AT_BEST, FINAL_TEST_ERROR, BEST_TEST_ERROR, columns.SECONDS}


def columns_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return keys of summaries and the heads of their columns: those that say most of the jobs, and the seconds."""
    found = (kind for kind in _KINDS if any(own.get(next(iter(kind))) is not None for own in summaries))
    shown = next(found, ERRORS)
    if BEST_VALIDATION_ERROR in shown:
        # In the place of the best test error, which would be chosen on the test set.
        shown = {FINAL_TEST_ERROR: ERRORS[FINAL_TEST_ERROR], **shown}
    if shown is not TIMES and any(own.get(TIMING_ONLY) for own in summaries):
        shown = {**shown, **TIMES}
    return {**shown, columns.SECONDS: "seconds"}


def measure_text(key: str, value: float | None) -> str:
    """Return a value of a summary as a table shows it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if key in _TWO_PLACES else number_text(value)
