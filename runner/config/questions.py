"""What the questions that a run answers in place of a training cannot be asked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.config.errors import InputError

QUESTIONS = ("plot_schedule", "evaluate_only", "advise", "estimate")
"""Keys of `run`, each false or null unless it is asked."""


def check(run: Mapping[str, Any], weights: object) -> None:
    """Refuse several questions at once, and what would do nothing beside one.

    Args:
        run: the section `run`.
        weights: `model.weights`.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    asked = [key for key in QUESTIONS if run[key]]
    if len(asked) > 1:
        allowed = " or ".join(f"run.{key}={'FILE' if key == 'plot_schedule' else 'true'}" for key in asked)
        raise InputError.of(f"run.{asked[0]}", run[asked[0]], "cannot be combined with another question", allowed)
    if run["profile"] and asked:
        raise InputError.of("run.profile", True, "would do nothing: nothing is trained", "false")
    if not run["evaluate_only"]:
        return
    if run["timing_only"]:
        raise InputError.of("run.evaluate_only", True, "the clock alone has no weights", "run.timing_only=false")
    if weights is None and not isinstance(run["resume"], str):
        allowed = "with run.resume=<run>, or with model.weights=<run or file>"
        raise InputError.of("run.evaluate_only", True, "no weights are given", allowed)
    if weights is not None and run["resume"] is not None:
        raise InputError.of("model.weights", weights, "the weights are those of run.resume", "null, or run.resume=null")
