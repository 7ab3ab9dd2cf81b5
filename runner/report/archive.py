"""Archives: the runs of a table or figure in one file of JSON lines, which is read like the folders it was made of.

    {"archive": "dcrun runs", "version": 1}
    {"run": "dasgd/resnet8_ssgd", "config": {"seed": 0, ...}, "overrides": ["algorithm=ssgd", ...]}
    {"summary": {"status": "completed", ...}}
    {"workers": {"seconds": 12.5, ...}}
    {"metrics": {"epoch": 1.0, "test_error": 36.45, ...}}
    {"metrics": {"epoch": 2.0, ...}}
    {"layers": {"epoch": 1.0, "variance_factor": {...}}}
    {"run": ...

A run is a line with its name and configuration, then its summary, then a line a row of each of its files, as far as
the report reads them; weights, checkpoints, logs and all but the first spans of a timeline stay in the folder. Two
archives written one after the other into a file are an archive.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.config.errors import InputError
from runner.report.run import Run
from runner.run_folder.jsonl import replace

SUFFIX = ".jsonl"
_HEADER = {"archive": "dcrun runs", "version": 1}
# Without the closing brace: an archive of a later version is still known for one, and refused by its version.
_START = b'{"archive": "dcrun runs"'
# The fields of `ArchivedRun` that a line of each kind fills: lists grow by a line, documents are set once.
_LIST_OF_ROWS = {"metrics": "rows", "layers": "layer_list", "timeline": "spans"}
_DOCUMENTS = {"summary": "summary", "workers": "worker_totals"}
_KINDS = ("archive", "run", *_DOCUMENTS, *_LIST_OF_ROWS)


@dataclass
class ArchivedRun(Run):
    """A run of an archive, which has all of it in memory.

    Attributes:
        groups: the option chosen of each config group, if the run's folder had a file with them.
        layer_list: the rows of `layers.jsonl`.
        worker_totals: `workers.json`.
        spans: the first spans of `timeline.jsonl`.
    """

    groups: dict[str, Any] = field(default_factory=dict)
    layer_list: list[dict[str, Any]] = field(default_factory=list)
    worker_totals: dict[str, Any] = field(default_factory=dict)
    spans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def choices(self) -> dict[str, Any]:
        """The option chosen of each config group."""
        return self.groups

    def layer_rows(self) -> list[dict[str, Any]]:
        """Return the rows of `layers.jsonl`."""
        return self.layer_list

    def workers(self) -> dict[str, Any]:
        """Return `workers.json`; empty if there was none."""
        return self.worker_totals

    def timeline(self) -> list[dict[str, Any]]:
        """Return the first spans of `timeline.jsonl`."""
        return self.spans


def is_archive(path: Path) -> bool:
    """Tell an archive from other files of JSON lines, as `metrics.jsonl` or a trace, by its beginning."""
    try:
        # Only the first bytes are read: every file of JSON lines below a path is asked, and traces can be gigabytes.
        with open(path, "rb") as file:
            return file.read(len(_START)) == _START
    except OSError:
        return False


def write(path: Path, runs: Iterable[Run]) -> None:
    """Write runs into an archive; an old file of that name is replaced as a whole.

    Args:
        path: the archive; its folder is made if need be.
        runs: what to write, in this order; they keep their names.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # NaN is kept, as the run wrote it: numbers come back as they were, to the bit.
    documents = [_HEADER, *(document for run in runs for document in _documents(run))]
    replace(path, "".join(json.dumps(document) + "\n" for document in documents).encode())


def read(path: Path) -> list[ArchivedRun]:
    """Read the runs of an archive.

    Raises:
        InputError: naming the file, the line, and what is wrong with it.
        OSError: if it cannot be read.
    """
    if not is_archive(path):
        raise InputError(
            f"{path}:1: is not an archive of runs; allowed: files that `dcreport PATH --archive FILE` wrote"
        )
    runs: list[ArchivedRun] = []
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            # RecursionError is no ValueError; json raises it for a line of some thousand nested brackets.
            _take(json.loads(text), path, runs)
        except RecursionError:
            raise InputError(f"{path}:{number}: is nested too deep") from None
        except json.JSONDecodeError as exc:
            raise InputError(f"{path}:{number}: is not JSON: {exc.msg} at column {exc.colno}") from None
        except ValueError as exc:
            raise InputError(f"{path}:{number}: {exc}") from None
    return runs


def _documents(run: Run) -> Iterator[dict[str, Any]]:
    # Hydra's own groups, as `hydra/launcher`, say nothing about the run.
    groups = {key: value for key, value in run.choices.items() if not key.startswith("hydra/")}
    rest = {"overrides": run.overrides, "groups": groups, "problems": run.problems}
    # What is empty is left out, so an archive of thousands of runs does not repeat three empty keys for each.
    yield {"run": run.name, "config": run.config} | {key: value for key, value in rest.items() if value}
    yield {"summary": run.summary}
    if workers := run.workers():
        yield {"workers": workers}
    for kind, rows in (("metrics", run.rows), ("layers", run.layer_rows()), ("timeline", run.timeline())):
        yield from ({kind: row} for row in rows)


def _take(document: Any, path: Path, runs: list[ArchivedRun]) -> None:
    """Add what a line says to the runs read so far, of which it belongs to the last.

    Raises:
        ValueError: saying what is wrong with the line.
    """
    # The first key names the kind: JSON objects keep the order in which they were written.
    kind = next(iter(document), None) if isinstance(document, dict) else None
    if kind not in _KINDS:
        raise ValueError(f"is not a line of an archive; allowed: JSON objects that begin with {', '.join(_KINDS)}")
    content = document[kind]
    if kind == "archive":
        # It may stand anywhere: `cat` of two archives is an archive.
        if document != _HEADER:
            raise ValueError(f"version {document.get('version')} of the format is unknown; allowed: 1")
    elif kind == "run":
        runs.append(_begin(document, path))
    elif not runs:
        raise ValueError(f"{kind} before the first run; allowed: a line that begins with run")
    elif not isinstance(content, dict) or len(document) > 1:
        raise ValueError(f"{kind}: is not one JSON object")
    elif kind in _LIST_OF_ROWS:
        getattr(runs[-1], _LIST_OF_ROWS[kind]).append(content)
    # A run has one; a second one means that a line with `run` is missing.
    elif getattr(runs[-1], _DOCUMENTS[kind]):
        raise ValueError(f"a second {kind} of {runs[-1].name}; allowed: one a run")
    else:
        setattr(runs[-1], _DOCUMENTS[kind], content)


def _begin(document: dict[str, Any], path: Path) -> ArchivedRun:
    # Types are checked here, since the page and the tables call `.items()` and `.startswith` on these without asking.
    kinds = {"run": str, "config": dict, "overrides": list, "groups": dict, "problems": list}
    for key, value in document.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            allowed = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
            raise ValueError(f"{key}: is unknown or of the wrong kind; allowed: {allowed}")
    known = {key: document[key] for key in kinds if key in document and key != "run"}
    return ArchivedRun(path, document["run"], **known)
