"""What one fault did to a run, for `benchmarks/faults.py`."""

from __future__ import annotations

from typing import NamedTuple

from injection import Run


class Try(NamedTuple):
    """What one fault did.

    Attributes:
        survived: whether the run ended as it should.
        lost: batches never used or used twice, and weights that differ from those they should be.
        seconds: until it was noticed, where there is something to notice.
        why: what went wrong.
    """

    survived: bool
    lost: int
    seconds: float | None
    why: str = ""


def used(run: Run, batches: int) -> int:
    """Return how many batches a whole run never used, or used twice, by its trace."""
    numbers = [line["batch"] for line in run.lines if "batch" in line]
    return len(numbers) - len(set(numbers)) + len(set(range(batches)) - set(numbers))
