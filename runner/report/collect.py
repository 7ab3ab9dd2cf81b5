"""Finds runs below some paths: run folders, and archives of runs."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from runner.report import archive, folder
from runner.report.archive import ArchivedRun
from runner.report.run import Run
from runner.run_folder.contents import CHECKPOINTS, METRICS, SUMMARY, TENSORBOARD

_LEFT_BY_RUNS = frozenset({SUMMARY, METRICS})
# Checkpoints are gigabytes, none of the others can hold a run, and some of them have thousands of files.
_NOT_ENTERED = frozenset({CHECKPOINTS, TENSORBOARD, "wandb", ".hydra", ".git", ".venv", "__pycache__"})


def collect(paths: Iterable[Path]) -> list[Run]:
    """Read every run below some paths; a path may itself be a run folder or an archive.

    Returns:
        the runs path by path, in the order of their names, wherever they were archived; each once: a folder that two
        paths lead to, or a run beside the archive that holds it, does not count twice.

    Raises:
        InputError: an archive cannot be read.
    """
    found: dict[Path, None] = {}
    runs: list[Run] = []
    for path in paths:
        below: list[tuple[tuple[str, ...], Run]] = []
        for place in _places(path):
            # Two paths may lead to one folder, also through a link.
            if (resolved := place.resolve()) in found:
                continue
            found[resolved] = None
            if place.is_dir():
                own = place.relative_to(path)
                below.append((own.parts, folder.read(place, str(own) if own.parts else place.name)))
            else:
                below += [(PurePath(run.name).parts, run) for run in archive.read(place)]
        # By name: which archive holds a run, and whether one does, changes neither a table nor a curve's colour.
        below.sort(key=lambda named: named[0])
        runs += [run for _, run in below]
    return _each_once(runs) if any(isinstance(run, ArchivedRun) for run in runs) else runs


def run_folders(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the run folders below some paths and their names, without reading them; archives are left out."""
    found: dict[Path, str] = {}
    for path in paths:
        for place in _places(path):
            if place.is_dir():
                own = place.relative_to(path)
                found.setdefault(place.resolve(), str(own) if own.parts else place.name)
    return found


def _places(path: Path) -> Iterator[Path]:
    """Yield the run folders and the archives at or below a path."""
    if path.is_file():
        yield path
    # The walk does not follow links to folders, so a link to a parent cannot make it endless.
    for place, below, files in os.walk(path):
        # In place: `os.walk` descends into what is left in this list, in this order.
        below[:] = sorted(name for name in below if name not in _NOT_ENTERED)
        # A run that was killed before its first file has only its configuration; a sweep's folder has `multirun.yaml`
        # beside it and is no run.
        started = ".hydra" in os.listdir(place) and "multirun.yaml" not in files
        if started or not _LEFT_BY_RUNS.isdisjoint(files):
            yield Path(place)
            continue  # its own line files are part of the run
        candidates = (Path(place) / name for name in sorted(files) if name.endswith(archive.SUFFIX))
        # Opening a pipe would wait for ever for somebody to write to it.
        yield from (path for path in candidates if path.is_file() and archive.is_archive(path))


def _each_once(runs: Iterable[Run]) -> list[Run]:
    """Leave out archived runs that are there already, and folders of archived runs.

    Two runs never have the same summary, which holds their wall seconds; two folders with the same contents were
    copied by somebody, and are kept, as they are without an archive.
    """
    kept: list[Run] = []
    seen: dict[str, bool] = {}
    for run in runs:
        archived = isinstance(run, ArchivedRun)
        # JSON rather than `==`: NaN is unequal to itself, and a diverged run would never be found again.
        contents = json.dumps([run.summary, run.config, run.rows], sort_keys=True)
        # Two folders with broken summaries may both be empty, and are two runs all the same.
        if run.summary and contents in seen and (archived or seen[contents]):
            continue
        seen[contents] = archived
        kept.append(run)
    return kept
