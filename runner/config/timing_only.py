"""What a run of the clock alone, `run.timing_only=true`, cannot be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.config.errors import InputError

_WITHOUT_SENSE = {
    "estimate": (False, "is answered in place of a run"),
    "advise": (False, "is answered in place of a run"),
    "plot_schedule": (None, "is answered in place of a run"),
    "resume": (None, "the clock alone leaves no checkpoint, and a run of it is made anew in seconds"),
    "checkpoint_every": (None, "the clock alone has no weights to save"),
    "target_loss": (None, "the clock alone has no loss"),
    "diagnostics": ([], "the clock alone has no weights to look at"),
    "profile": (False, "the clock alone has no parts to tell apart"),
    "compile": (False, "the clock alone computes no update"),
}
"""By key of `run`: the value that goes with the clock alone, and why no other does."""


def check(run: Mapping[str, Any], cluster: Mapping[str, Any]) -> None:
    """Refuse what would do nothing in a run of the clock alone.

    Args:
        run: the section `run`.
        cluster: the section `cluster`.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    if not run["timing_only"]:
        return
    if cluster["kind"] != "simulated":
        what = "the clock alone is that of simulated workers"
        raise InputError.of("cluster.kind", cluster["kind"], what, "simulated, or run.timing_only=false")
    if cluster["record"]:
        what = "the clock alone handles no messages to record"
        raise InputError.of("cluster.record", True, what, "false, null, or run.timing_only=false")
    if run["compute_processes"] not in (1, "auto"):
        asked, what = run["compute_processes"], "the clock alone computes no gradient"
        raise InputError.of("run.compute_processes", asked, what, "1, auto, or run.timing_only=false")
    for key, (allowed, why) in _WITHOUT_SENSE.items():
        if run[key] != allowed:
            text = {None: "null", False: "false"}.get(allowed) if not isinstance(allowed, list) else "[]"
            raise InputError.of(f"run.{key}", run[key], why, f"{text or allowed}, or run.timing_only=false")
