"""What a search goes by: a number of its runs' summaries, of the validation split if there is one."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    BEST_VALIDATION_LOSS,
    FINAL_TEST_ERROR,
    FINAL_VALIDATION_ERROR,
    TEST_ERROR_AT_BEST,
)

OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    BEST_VALIDATION_ERROR: "minimize",
    FINAL_VALIDATION_ERROR: "minimize",
    BEST_VALIDATION_LOSS: "minimize",
    BEST_TEST_ERROR: "minimize",
    FINAL_TEST_ERROR: "minimize",
    "final_train_loss": "minimize",
    "epochs_to_target": "minimize",
    "seconds": "minimize",
    "samples_per_second": "maximize",
}
"""Numbers of `summary.json` that a search can optimise, and in which direction."""
REPORTED = {
    BEST_VALIDATION_ERROR: TEST_ERROR_AT_BEST,
    FINAL_VALIDATION_ERROR: FINAL_TEST_ERROR,
    BEST_VALIDATION_LOSS: FINAL_TEST_ERROR,
}
"""Scores on the validation split, and the test error that is reported of what was chosen by each."""
KEY = "hydra.sweeper.metric"
SPLIT = "dataset.validation"
TIMING = "run.timing_only"
TIMED = ("seconds",)
"""What runs of the clock alone can be searched by."""


def objective(config: DictConfig, fixed: Sequence[str]) -> str:
    """Return what a search goes by: the metric asked for, else the validation error if there is one.

    Args:
        config: the configuration that the command line composes to, with Hydra's part.
        fixed: overrides that all runs of the search have.

    Raises:
        InputError: it is none of `OBJECTIVES`, or one of a validation split, and there is none; or the runs are of the
            clock alone, and have no such number.
    """
    asked, split = config.hydra.sweeper.metric, _has_validation(config, fixed)
    if asked not in TIMED and given(config, fixed, TIMING) in (True, "true"):
        raise InputError.of(KEY, asked, f"{TIMING}=true trains nothing to choose by", ", ".join(TIMED))
    if asked is None:
        return BEST_VALIDATION_ERROR if split else BEST_TEST_ERROR
    if asked not in OBJECTIVES:
        raise InputError.of(KEY, asked, "is not a metric of a search", f"{', '.join(OBJECTIVES)}, null")
    if asked in REPORTED and not split:
        allowed = f"with {SPLIT}=0.1, or {', '.join(name for name in OBJECTIVES if name not in REPORTED)}, null"
        raise InputError.of(KEY, asked, "there is no validation split", allowed)
    return asked


def warning(metrics: Iterable[str]) -> str | None:
    """Return a line about searches that choose settings on the test set, None if none of them does."""
    tested = next((metric for metric in metrics if metric in (BEST_TEST_ERROR, FINAL_TEST_ERROR)), None)
    return tested and (
        f"{KEY}={tested}: settings are chosen on the test set, so that the best one's test error is too good; "
        f"{SPLIT}=0.1 takes samples from the training set to choose by"
    )


def _has_validation(config: DictConfig, fixed: Sequence[str]) -> bool:
    return given(config, fixed, SPLIT) not in (None, "null")


def given(config: DictConfig, fixed: Sequence[str], name: str) -> Any:
    """Return what a key is in all runs: in lower case as it is typed, else as it is composed; None if it is deleted."""
    # A line of an experiment or its scale may say otherwise than the configuration without it.
    given = [text.partition("=") for text in fixed if text.lstrip("+~").partition("=")[0] == name]
    if given:
        key, _, value = given[-1]
        return None if key.startswith("~") else value.lower()
    return OmegaConf.select(config, name)
