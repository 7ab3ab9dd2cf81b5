"""Another checkout of this project as a side of a benchmark, in a process of its own: what a change costs a run.

`DCRUN_EARLIER_CHECKOUT` says where it is; it is the code of one commit, as `git worktree add` makes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

PLACE = "DCRUN_EARLIER_CHECKOUT"
HERE = Path(__file__).resolve().parent.parent
_SERVE = """
import as_in_dcrun, sys, torch
from subject import build_components, run
given = build_components(sys.argv[1:])
for _ in sys.stdin:
    torch.set_num_threads(1)
    print(run(given)["samples_per_second"], flush=True)
"""


def checkout() -> Path | None:
    """Return where the other checkout is; None if the environment names none, or one without benchmarks."""
    place = os.environ.get(PLACE)
    found = None if place is None else Path(place).resolve()
    return found if found is not None and (found / "benchmarks" / "subject.py").is_file() else None


def side(place: Path, overrides: Sequence[str]) -> Callable[[], float]:
    """Return a side that makes a run by the code of a checkout, with one thread; samples/s."""
    environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{place / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, *overrides],
        env=environment,
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, told = process.stdin, process.stdout

    def speed() -> float:
        asked.write("\n")
        asked.flush()
        answer = told.readline()
        if not answer:
            raise RuntimeError(f"the benchmark's process in {place} ended")
        return float(answer)

    return speed
