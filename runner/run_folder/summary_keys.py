"""Keys of `summary.json` that several files write or read, and the values of its `status`."""

BEST_TEST_ERROR = "best_test_error"
"""Lowest of all evaluations, in percent."""
FINAL_TEST_ERROR = "final_test_error"
"""That of the last evaluation, in percent."""
STATUS = "status"

RUNNING = "running"
COMPLETED = "completed"
DIVERGED = "diverged"
"""The loss was infinite or NaN."""
INTERRUPTED = "interrupted"
"""A signal or a lost process ended the run; with a checkpoint it can be continued."""
FAILED = "failed"
"""An exception ended the run."""
ENDED = (COMPLETED, DIVERGED)
"""The run went as far as it could: continuing it would add nothing."""
