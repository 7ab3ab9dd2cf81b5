"""The columns of a row of metrics that come from training sums, and from scores on the test and validation splits."""

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


def score_columns(score: Score | None, names: Sequence[str] = columns.TEST_SCORE) -> dict[str, float]:
    """Return loss and what was scored of error, error among five guesses and perplexity; nothing without a score.

    Args:
        score: on a split.
        names: of these columns for that split.
    """
    if score is None:
        return {}
    return {name: value for name, value in zip(names, score, strict=True) if value is not None}
