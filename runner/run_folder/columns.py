"""Names of the columns of `metrics.jsonl`; every writer and reader of its rows takes them from here.

Columns that a method adds, and `activation_bytes_module<k>` of each module, are not listed.
"""

EPOCH = "epoch"
"""Effective passes: gradient evaluations / n."""
SAMPLES = "samples"
UPDATES = "updates"
SECONDS = "seconds"
"""Virtual or measured seconds, without evaluations."""
TRAIN_LOSS = "train_loss"
"""Mean over the samples since the previous row; training errors too. Errors are in percent."""
TRAIN_ERROR = "train_error"
TRAIN_ERROR_TOP5 = "train_error_top5"
TRAIN_PERPLEXITY = "train_perplexity"
"""Both of `run.evaluate_only=true` alone."""
TEST_LOSS = "test_loss"
TEST_ERROR = "test_error"
TEST_ERROR_TOP5 = "test_error_top5"
TEST_PERPLEXITY = "test_perplexity"
"""exp of the loss in nats, of datasets of tokens alone."""
VALIDATION_LOSS = "validation_loss"
"""Of the validation split, as its errors; only rows of a run that has one (`dataset.validation`) have them."""
VALIDATION_ERROR = "validation_error"
VALIDATION_ERROR_TOP5 = "validation_error_top5"
VALIDATION_PERPLEXITY = "validation_perplexity"
TRAIN_SCORE = (TRAIN_LOSS, TRAIN_ERROR, TRAIN_ERROR_TOP5, TRAIN_PERPLEXITY)
TEST_SCORE = (TEST_LOSS, TEST_ERROR, TEST_ERROR_TOP5, TEST_PERPLEXITY)
VALIDATION_SCORE = (VALIDATION_LOSS, VALIDATION_ERROR, VALIDATION_ERROR_TOP5, VALIDATION_PERPLEXITY)
"""The columns of a score on a split: loss, error, error among the five best guesses, and perplexity."""
LR = "lr"
STALENESS_MEAN = "staleness_mean"
STALENESS_MAX = "staleness_max"
BYTES_SENT = "bytes_sent"
"""What all workers and the server have sent so far, by the layout of their messages; of a shared memory, what was read
and written. Rows of earlier versions do not have it."""
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
    BYTES_SENT,
)
"""Columns of every row of every run; null if the run has no such value."""

STOPPED = "stopped"
"""How often a worker dropped what it computed; of methods that stop workers alone."""
COMMUNICATION_SECONDS = "communication_seconds"
HIDDEN_SECONDS = "hidden_seconds"
GAP_MEAN = "gap_mean"
"""RMSE between the weights at a push and those that its worker pulled, since the previous row; see `loop.drift`."""
GAP_MAX = "gap_max"
UPDATE_COSINE = "update_cosine"
"""Mean cosine between a pushed gradient and the step that the server then took."""
DISAGREEMENT_MEAN = "disagreement_mean"
DISAGREEMENT_MAX = "disagreement_max"
ACTIVATION_BYTES = "activation_bytes"
PRIMAL = "primal"
SUBOPTIMALITY = "suboptimality"
DUAL = "dual"
DUALITY_GAP = "duality_gap"
