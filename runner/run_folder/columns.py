"""Names of the columns of `metrics.jsonl`, which every writer and reader of its rows takes from here.

What a method adds, and what `activation_bytes_module<k>` counts module by module, is not listed.
"""

EPOCH = "epoch"
"""Effective passes: gradient evaluations / n."""
SAMPLES = "samples"
UPDATES = "updates"
SECONDS = "seconds"
"""Virtual or measured, evaluation excluded."""
TRAIN_LOSS = "train_loss"
"""Mean over the samples since the row before, as are training errors, in percent like all errors."""
TRAIN_ERROR = "train_error"
TEST_LOSS = "test_loss"
TEST_ERROR = "test_error"
TEST_ERROR_TOP5 = "test_error_top5"
LR = "lr"
STALENESS_MEAN = "staleness_mean"
STALENESS_MAX = "staleness_max"
STANDARD = (
    EPOCH,
    SAMPLES,
    UPDATES,
    SECONDS,
    TRAIN_LOSS,
    TRAIN_ERROR,
    TEST_LOSS,
    TEST_ERROR,
    LR,
    STALENESS_MEAN,
    STALENESS_MAX,
)
"""Columns that a row of every run has, null where the run has no such value."""

COMMUNICATION_SECONDS = "communication_seconds"
HIDDEN_SECONDS = "hidden_seconds"
DISAGREEMENT_MEAN = "disagreement_mean"
DISAGREEMENT_MAX = "disagreement_max"
ACTIVATION_BYTES = "activation_bytes"
PRIMAL = "primal"
SUBOPTIMALITY = "suboptimality"
DUAL = "dual"
DUALITY_GAP = "duality_gap"
