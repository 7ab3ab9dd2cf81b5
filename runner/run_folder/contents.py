"""Names of the files in a run folder, and functions that read them, for all readers.

Imports neither torch nor Hydra: launchers and reports look into thousands of folders.
"""

import re
from pathlib import Path
from typing import Any

from runner.run_folder.jsonl import read_document, read_lines

CONFIG = ".hydra/config.yaml"
SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
METRICS_CSV = "metrics.csv"
LAYERS = "layers.jsonl"
TIMELINE = "timeline.jsonl"
WORKERS = "workers.json"
DELAYS = "delays.csv"
PROFILE = "profile.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

_CHECKPOINT = re.compile(r"step-(\d+)\.pt")


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of `summary.json`; empty if the run did not get far enough to write one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold a JSON object. The writer replaces it as a whole, so a kill does not leave such a
            file.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return {}
    return read_document(path)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `metrics.jsonl`, one for each evaluation; empty if the run made none."""
    return read_lines(folder / METRICS)


def checkpoint_files(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a run folder, whole or damaged, as (updates, file), the newest first.

    A kill in the middle of a write leaves a file with a temporary name, which is not listed.
    """
    # `glob` of a folder that does not exist finds nothing, and needs no question before.
    found = (folder / CHECKPOINTS).glob("*")
    return sorted(
        ((int(match[1]), path) for path in found if (match := _CHECKPOINT.fullmatch(path.name))), reverse=True
    )


def has_checkpoints(folder: Path) -> bool:
    """Return whether a run folder holds a checkpoint to continue from, whole or damaged."""
    return bool(checkpoint_files(folder))
