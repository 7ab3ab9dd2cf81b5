"""The JSON that the page carries: columns that runs share once, and what one run is looked at for by itself.

A browser reads the page of a thousand runs in seconds that way: most of it is parsed when a run is chosen, not before.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

DETAILS = ("facts", "configured", "timeline", "staleness", "problems", "prints", "rows")
"""What the page shows of one run, or of two that are compared."""


def without_details(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs without what `details` has."""
    return [{key: value for key, value in run.items() if key not in DETAILS} for run in runs]


def details(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a line of JSON for each run, in their order."""
    return "\n".join(script_json({key: run[key] for key in DETAILS}) for run in runs)


def pooled(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the runs with numbers in place of their columns, as `runs`, and the columns with those numbers, as `pool`.

    Runs of a sweep have their passes, samples, updates and rates in common.

    Args:
        runs: each with `evaluations`, a column, and `curve`, columns by name.
    """
    numbers: dict[str, int] = {}
    pool: list[Sequence[Any]] = []

    def number(column: Sequence[Any]) -> int:
        # 1 and 1.0 are equal, but not the same text on the page.
        key = repr(column)
        if key not in numbers:
            numbers[key] = len(pool)
            pool.append(column)
        return numbers[key]

    made = [
        {
            **run,
            "evaluations": number(run["evaluations"]),
            "curve": {key: number(column) for key, column in run["curve"].items()},
        }
        for run in runs
    ]
    return {"runs": made, "pool": pool}


def script_json(data: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    # "<" could end the script; U+2028 ends a line in JavaScript, but not in JSON.
    return json.dumps(data, separators=(",", ":"), default=str).replace("<", "\\u003c").replace("\u2028", "\\u2028")
