"""SHA-256 of the weights that every method ends with: simulated, on processes, and replayed from recorded traces.

    python benchmarks/weights.py                                     # the table, of this checkout
    python benchmarks/weights.py --checkout DIR --write before.json  # of another one
    python benchmarks/weights.py --compare benchmarks/weights.json   # which rows are equal; exit code 1 if not all are

Whoever changes code without meaning to change arithmetic compares before and after. Every row is a run of some steps,
which the command line starts (`python -m runner.cli …`) and `summary.json` describes, so any commit can be measured.
With one thread a run repeats to the bit on a machine; another instruction set or another torch rounds differently, and
such files are not compared. `weights_rows.py` lists the runs. A run on a virtual clock repeats everything that it
measures, so the SHA-256 of its `metrics.jsonl` is compared too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from weights_rows import rows

HERE = Path(__file__).resolve().parent
TRACES = HERE.parent / "tests" / "runner" / "old_runs"
PRELOADED = (
    "hydra",
    "matplotlib",
    "omegaconf",
    "rich",
    "safetensors.torch",
    "sklearn.datasets",
    "torch",
    "torchvision",
)
"""Modules that runs import, except the checkout's own: imported once, and shared by all runs, which are forks."""
SHARING = 5
"""Runs on processes that one server of forks serves."""
HASHES = ("weights_sha256", "buffers_sha256", "metrics_sha256")
COUNTED = ("bytes_sent",)
"""Columns that earlier commits did not write; they follow from the counts of updates, not from arithmetic."""
MUST_AGREE = ("isa", "torch")
"""What two tables must have in common for their bits to be comparable."""


def _together(names: Iterable[str]) -> list[list[str]]:
    """Return the runs that one process makes in turn.

    A run's processes are forked from a server that has to import torch anew; runs in turn of one process share it.
    """
    simulated = [[name] for name in names if not name.startswith("processes:")]
    processes = [name for name in names if name.startswith("processes:")]
    return simulated + [processes[low : low + SHARING] for low in range(0, len(processes), SHARING)]


@contextmanager
def folder_of_this_process() -> Iterator[Path]:
    """Make a temporary folder, which goes with the block; `TemporaryDirectory` has every forked run remove it."""
    place = Path(tempfile.mkdtemp(prefix="dcrun-weights-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def metrics_sha256(text: str) -> str:
    """Return the SHA-256 of the rows of a `metrics.jsonl`, without columns that only some commits write."""
    kept = ({key: value for key, value in json.loads(line).items() if key not in COUNTED} for line in text.splitlines())
    # As `runner.run_folder.jsonl` writes them: without such columns it is the hash of the file.
    return hashlib.sha256("".join(json.dumps(row) + "\n" for row in kept).encode()).hexdigest()


class Runs:
    """Makes the runs, each in a process forked from this one, which never imports the checkout's code itself.

    Args:
        checkout: the folder whose code runs.
        place: an empty folder for their run folders and output.
    """

    def __init__(self, checkout: Path, place: Path) -> None:
        self.checkout = checkout
        self.place = place
        # Some losses explode, which ends a run where a commit calls that divergence: the steps are what is compared.
        knows = "divergence_factor" in (checkout / "conf" / "config.yaml").read_text()
        self.more = ["run.divergence_factor=null"] if knows else []
        for trace in TRACES.glob("*_traced/trace.jsonl"):
            # Away from its run folder, whose overrides a replay would take over.
            shutil.copy(trace, place / f"{trace.parent.name}.jsonl")
        shutil.copy(HERE / "dropout_mlp.py", place)
        for name in PRELOADED:
            importlib.import_module(name)

    def all(self, wanted: Mapping[str, Sequence[str]], jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Make runs, `jobs` at a time, and yield each one's name and what it ended with.

        A run that fails is shown with its output, and the others go on.
        """
        left, running = _together(wanted), dict[int, list[str]]()
        while left or running:
            while left and len(running) < jobs:
                running[self._start(left[0], wanted)] = left[0]
                del left[0]
            pid, _ = os.wait()
            for name in running.pop(pid):
                yield name, {"overrides": list(wanted[name])} | self._ended(name)

    def _folder(self, name: str) -> Path:
        return self.place / re.sub(r"\W+", "-", name)

    def _start(self, names: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> int:
        pid = os.fork()
        if pid:
            return pid
        # The child. Whatever happens it must not come back into this program.
        try:
            os.chdir(self.place)
            path = [str(self.checkout), str(self.place)]
            sys.path[:0] = path
            os.environ["PYTHONPATH"] = os.pathsep.join(path)
            for name in names:
                self._make(name, wanted[name])
        finally:
            os._exit(0)

    def _make(self, name: str, overrides: Sequence[str]) -> None:
        """Do what `python -m runner.cli <overrides>` does, its output and exit code in files."""
        folder, code = self._folder(name), 1
        # A process of its own: a command ends its process as soon as it is done.
        if pid := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            folder.with_suffix(".code").write_text(str(code))
            return
        output = os.open(folder.with_suffix(".txt"), os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        sys.argv = ["dcrun", *overrides, *self.more, f"hydra.run.dir={folder.name}"]
        try:
            runpy.run_module("runner.cli", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:  # noqa: BLE001 (shown to whoever made the table)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _ended(self, name: str) -> dict[str, Any]:
        folder = self._folder(name)
        if (code := folder.with_suffix(".code").read_text()) != "0":
            output = folder.with_suffix(".txt").read_text()
            print(f"{name} ended with {code}:\n{output[-3000:]}", file=sys.stderr)
            return {"failed": code}
        self.summary = json.loads((folder / "summary.json").read_text())
        if self.summary["status"] != "completed":
            return {"failed": self.summary["status"]}  # weights that overflowed are all alike
        found = {key: self.summary[key] for key in ("weights_sha256", "buffers_sha256", "updates")}
        if self.summary["clock"] == "virtual":
            found["metrics_sha256"] = metrics_sha256((folder / "metrics.jsonl").read_text())
        return found

    def about(self) -> dict[str, Any]:
        """Return what the bits depend on, and the checkout's commit; known after a run."""
        facts = {key: self.summary[key] for key in ("git_commit", "isa", "cpu", "threads")}
        versions = {key: self.summary["versions"][key] for key in ("torch", "numpy", "python")}
        return facts | versions


def difference(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """Return how a row differs from the stored one, empty if it does not."""
    if old is None or new is None:
        return "is new" if old is None else "is no longer made"
    if old["overrides"] != new["overrides"]:
        return "has other settings now"
    return ", ".join(key for key in (*HASHES, "updates", "failed") if old.get(key) != new.get(key))


def main() -> int:
    """Make the runs, print the table; the exit code is 1 if a comparison fails, 2 if there can be none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkout", type=Path, default=HERE.parent, metavar="DIR", help="whose code; default: this")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="a table that --write wrote")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; default: 1")
    parser.add_argument("--only", default="", metavar="REGEX", help="only rows whose name matches this")
    arguments = parser.parse_args()
    wanted = {name: overrides for name, overrides in rows().items() if re.search(arguments.only, name)}
    if not wanted:
        parser.error(f"--only={arguments.only}: no row is named so; allowed: what matches one of {', '.join(rows())}")
    stored = json.loads(arguments.compare.read_text()) if arguments.compare else None
    if stored and (other := _elsewhere(stored["about"])):
        print(f"--compare={arguments.compare}: {other}; bits are comparable on one machine only", file=sys.stderr)
        return 2
    begin, found = time.perf_counter(), dict[str, dict[str, Any]]()
    with folder_of_this_process() as place:
        runs = Runs(arguments.checkout.resolve(), place)
        for name, row in runs.all(wanted, arguments.jobs):
            found[name] = row
            print(f"{time.perf_counter() - begin:6.1f} s  {name}", file=sys.stderr, flush=True)
        about = runs.about()
    found = {name: found[name] for name in wanted}
    if arguments.write:
        arguments.write.write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n")
    before = {name: row for name, row in stored["rows"].items() if re.search(arguments.only, name)} if stored else None
    differences = _show(found, about, before)
    failed = sum("failed" in row for row in found.values())
    if failed:
        print(f"{failed} rows failed: their output is above", file=sys.stderr)
    return int(differences > 0 or failed > 0)


def _elsewhere(about: Mapping[str, Any]) -> str | None:
    """Return in what this machine differs from a table's so that their bits cannot be equal."""
    torch = importlib.import_module("torch")
    mine = {"isa": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    differing = [f"{key} {about[key]} there, {mine[key]} here" for key in MUST_AGREE if about[key] != mine[key]]
    return ", ".join(differing) or None


def _show(found: Mapping[str, Any], about: Mapping[str, Any], before: Mapping[str, Any] | None) -> int:
    """Print the table and return the number of rows that differ."""
    table = Table(title=", ".join(f"{key} {value}" for key, value in about.items()))
    for column in ("run", "updates", "weights", "buffers", "metrics", *(["compared"] if before is not None else [])):
        table.add_column(column)
    differing = 0
    for name in [*found, *(name for name in before or {} if name not in found)]:
        row = found.get(name, {})
        cells = [
            name,
            str(row.get("updates", f"failed: {row.get('failed')}")),
            *(row.get(key, "")[:16] for key in HASHES),
        ]
        if before is not None:
            other = difference(before.get(name), found.get(name))
            differing += bool(other)
            cells.append(f"[red]differs: {other}[/]" if other else "equal")
        table.add_row(*cells)
    console = Console(width=140)
    console.print(table)
    if before is not None:
        console.print(f"{len(table.rows) - differing} rows equal, {differing} differ")
    return differing


if __name__ == "__main__":
    sys.exit(main())
