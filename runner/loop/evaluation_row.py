"""The columns of a row of metrics that come from training sums and from a test score."""

from __future__ import annotations

from collections.abc import Sequence

from runner.gradients.evaluate import Score
from runner.run_folder import columns


def training_columns(totals: Sequence[float], classifies: bool) -> dict[str, float | None]:
    """Return mean training loss and error in percent, None if nothing was trained on or nothing is classified.

    Args:
        totals: sums of losses, errors and samples since the row before.
        classifies: whether the model guesses classes, so that training has errors.
    """
    loss, errors, count = totals
    return {
        # A row may come before any update, as after a barrier that the run begins with.
        columns.TRAIN_LOSS: loss / count if count else None,
        columns.TRAIN_ERROR: 100 * errors / count if count and classifies else None,
    }


def score_columns(score: Score | None) -> dict[str, float]:
    """Return test loss and what was scored of error, and error among five guesses; nothing without a score."""
    if score is None:
        return {}
    tested = {columns.TEST_LOSS: score.loss}
    if score.error is not None:
        tested[columns.TEST_ERROR] = score.error
    if score.error_top5 is not None:
        tested[columns.TEST_ERROR_TOP5] = score.error_top5
    return tested
