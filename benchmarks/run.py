"""Runs all benchmarks, in under ten minutes on two cores: `make bench`, or `python benchmarks/run.py [name ...]`.

Each runs in a process of its own. The table goes to the terminal. It goes to
`outputs/benchmarks/<date>_<time>/results.json` too, with the value of every round, the machine's facts and versions.
The exit code is 0 once all have been measured, whatever they show: these are measurements, not tests.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from sidebyside import Row, show, sized

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("startup", "memory", "updates", "clars", "dual", "messages", "training")


def main() -> int:
    """Run what the command line names, by default all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--outputs", type=Path, default=HERE.parent / "outputs" / "benchmarks")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"{unknown[0]}: no such benchmark; allowed: {', '.join(BENCHMARKS)}")
    console = Console()
    folder = arguments.outputs / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    failed = []
    begin = time.perf_counter()
    for name in arguments.names or BENCHMARKS:
        console.print(f"[dim]{name} …[/]")
        path = folder / f"{name}.json"
        # The packages are importable without being installed, too.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
        code = subprocess.run([sys.executable, HERE / f"{name}.py", "--json", path], env=environment).returncode
        if code:
            failed.append(name)
            continue
        rows[name] = json.loads(path.read_text())
        path.unlink()
        # After each, so that what was measured stays if the rest is interrupted.
        document = {
            "date": folder.name,
            "scale": sized("full", "small"),
            "seconds": time.perf_counter() - begin,
            **_machine(),
            "benchmarks": rows,
        }
        (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    console.print()
    show([_row(row) for found in rows.values() for row in found], console)
    console.print(f"\n{time.perf_counter() - begin:.0f} s; every round in {folder / 'results.json'}")
    if failed:
        console.print(f"[red]not measured: {', '.join(failed)}[/]")
    return 1 if failed else 0


def _row(stored: dict[str, Any]) -> Row:
    return Row(**{key: value for key, value in stored.items() if key not in ("value", "reached")})


def _machine() -> dict[str, Any]:
    sys.path.insert(0, str(HERE.parent))
    from runner.run_folder import machine

    return {"load_average": os.getloadavg(), **machine.facts("cpu")}


if __name__ == "__main__":
    sys.exit(main())
