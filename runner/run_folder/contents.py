"""Names of the files in a run folder, and what is read back from them by more than one reader.

Imports neither torch nor Hydra: launchers and reports look into thousands of folders.
"""

import re
from pathlib import Path
from typing import Any

from runner.run_folder.jsonl import read_document, read_lines

CONFIG = ".hydra/config.yaml"
SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
LAYERS = "layers.jsonl"
TIMELINE = "timeline.jsonl"
WORKERS = "workers.json"
CHECKPOINTS = "checkpoints"

_CHECKPOINT = re.compile(r"step-(\d+)\.pt")


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of `summary.json`; empty if the run did not get so far as to write one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no JSON object. The writer replaces it as a whole, so a kill does not leave such a file.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return {}
    return read_document(path)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `metrics.jsonl`, one an evaluation; none if the run made none."""
    return read_lines(folder / METRICS)


def checkpoint_files(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a run folder, whole or damaged, as (updates, file), the newest first.

    Files that a kill left half written have temporary names and are not among them.
    """
    found = (folder / CHECKPOINTS).glob("*")
    return sorted(
        ((int(match[1]), path) for path in found if (match := _CHECKPOINT.fullmatch(path.name))), reverse=True
    )


def has_checkpoints(folder: Path) -> bool:
    """Return whether a run folder holds something to go on from, whole or damaged."""
    return bool(checkpoint_files(folder))
