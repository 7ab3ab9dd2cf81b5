"""A run's own copy of the file that `cluster.compute.delays` names, so that the run can go on without that file."""

from pathlib import Path

from omegaconf import DictConfig

from runner.config import delays
from runner.config.errors import InputError
from runner.run_folder.contents import DELAYS, read_summary
from runner.run_folder.jsonl import replace
from runner.run_folder.summary_keys import DELAYS_SHA256


def keep(cfg: DictConfig, folder: Path, workers: int) -> None:
    """Copy the file of computing times into the run folder, and let the configuration name the copy.

    Args:
        cfg: the configuration; not changed if it has no such file.
        folder: the run folder.
        workers: number of workers M.

    Raises:
        InputError: the file cannot be used.
    """
    place, copy = cfg.cluster.compute.delays, folder / DELAYS
    if place is None or place == str(copy):
        return
    # From one reading: what the run is told, keeps and draws from cannot differ, even if somebody writes to the file.
    replace(copy, delays.read(place, workers).content)
    cfg.cluster.compute.delays = str(copy)


def kept(folder: Path) -> str:
    """Return the place of a run's own copy.

    Raises:
        InputError: it is not what the run began with.
    """
    copy = folder / DELAYS
    begun = read_summary(folder).get(DELAYS_SHA256)
    # A run that was killed before its first summary has done nothing with the copy yet.
    if not copy.is_file() or (begun is not None and delays.read(str(copy)).sha256 != begun):
        what = f"{copy} is {'not what the run began with' if copy.is_file() else 'missing'}"
        raise InputError.of("run.resume", str(folder), what, "a run folder with its delays.csv as the run wrote it")
    return str(copy)


def same(place: str | None, folder: Path) -> bool:
    """Return whether a run has the computing times that a configuration asks for now.

    Args:
        place: the configuration's file, None for none; a file that is gone cannot be told from the run's.
        folder: the run folder, whose configuration names the same file.
    """
    try:
        return place is None or delays.read(place).content == (folder / DELAYS).read_bytes()
    except (InputError, OSError):
        return place is not None and not Path(place).expanduser().exists() and (folder / DELAYS).is_file()
