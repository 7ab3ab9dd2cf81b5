"""Continues stopped runs: reads the configuration of a run folder, and finds earlier runs of a sweep's jobs."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from runner.config import yaml_text
from runner.config.errors import InputError
from runner.config.old_names import add_new_keys, rename_targets
from runner.config.paths import expanded
from runner.config.schema import DATA_PLACE, END_WITH_RUN, Config
from runner.run_folder import folders, kept_delays
from runner.run_folder.contents import CONFIG, has_checkpoints, read_metrics, read_summary
from runner.run_folder.summary_keys import ENDED, INTERRUPTED, PRUNED, RUNNING, STATUS
from runner.run_folder.sweep_jobs import JOBS

log = logging.getLogger("dcrun")

ALLOWED = ("run.resume", "run.evaluate_only", "run.threads", "run.compute_processes", "run.profile", "logger")
"""Keys that may change when a run is continued; any other would make it another run."""
NOT_REPEATED = ("run.name", "run.resume", "run.estimate", "run.evaluate_only", "run.profile")
"""Keys of a recorded run that a replay does not take over."""


def may_accompany(key: str) -> bool:
    """Return whether a key may stand beside `run.resume=<folder>`."""
    return key in ALLOWED or key.startswith("logger.") or key == "hydra.searchpath"


def run_folder(resume: str) -> Path:
    """Return the folder that `run.resume=<folder>` names.

    Raises:
        InputError: it is not a run folder, or one of its files is damaged in a way that no kill leaves behind.
    """
    folder = expanded(resume, "run.resume")
    if not folder.is_dir():
        raise InputError.of("run.resume", resume, "no such folder", "the folder of a stopped run, as outputs/dcrun/...")
    if (folder / JOBS).is_file():
        allowed = "the folder of one of its jobs, or the sweep's command again with run.resume=true"
        raise InputError.of("run.resume", resume, "is the folder of a sweep", allowed)
    if not (folder / CONFIG).is_file():
        wrong = "is not a run folder (it has no .hydra/config.yaml)"
        raise InputError.of("run.resume", resume, wrong, "the folder of a stopped run")
    try:
        # Opening a pipe would wait for ever for somebody to write to it.
        for path in folder.iterdir():
            if not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path} is not a plain file")
        read_summary(folder)
        read_metrics(folder)
    except (OSError, ValueError) as exc:
        allowed = "a run folder whose files are whole; remove or restore the one that is not"
        raise InputError.of("run.resume", resume, f"cannot be continued ({exc})", allowed) from exc
    return folder


def stored_config(folder: Path, typed: DictConfig, overrides: Iterable[Override]) -> DictConfig:
    """Read the configuration of a stopped run and apply the few overrides that may accompany `run.resume`.

    Args:
        folder: the run folder.
        typed: the configuration that the present command line composes to; it gives the values of the allowed keys.
        overrides: the present command line.

    `run.epochs` may accompany it too, to make the run longer; a sweep takes such a run for another one.

    Raises:
        InputError: for an override that would change the run, or a stored configuration of another version.
    """
    # Merged into the schema, a configuration from before a key existed gets that key's default.
    cfg = OmegaConf.structured(Config)
    try:
        cfg = OmegaConf.merge(cfg, yaml_text.load(folder / CONFIG))
    except Exception as exc:
        raise InputError(f"run.resume={folder}: its .hydra/config.yaml cannot be used: {exc}") from exc
    assert isinstance(cfg, DictConfig)
    for group in ("algorithm", "model", "dataset"):
        if not isinstance(cfg[group], DictConfig) or not isinstance(cfg[group].get("_target_"), str):
            raise InputError(f"run.resume={folder}: its .hydra/config.yaml cannot be used: it says no {group}")
    for override in overrides:
        key = override.key_or_group
        if key == "run.epochs" and typed.run.evaluate_only:
            what = "does nothing beside run.evaluate_only=true, which trains nothing"
            raise InputError(f"{override.input_line}: {what}; allowed: without it")
        if key == "run.epochs":
            _check_longer(cfg, typed.run.epochs)
        # Refused, not ignored: who types another rate would believe that the run goes on with it.
        elif not may_accompany(key):
            wrong = "cannot change when a run is continued (run.resume)"
            allowed = ", ".join((*ALLOWED, "run.epochs", "logger.<key>"))
            raise InputError(f"{override.input_line}: {wrong}; allowed: {allowed}")
        # Where the user's code lies is no part of the run: it may have moved.
        if key not in ("run.resume", "hydra.searchpath"):
            # Replaced, not merged: of another logger than the stored one no key stays.
            OmegaConf.update(cfg, key, OmegaConf.select(typed, key), merge=False)
    if cfg.cluster.compute.delays is not None:
        cfg.cluster.compute.delays = kept_delays.kept(folder)
    # The file says what this key was at the start of the run; from here on it says that the run goes on.
    cfg.run.resume = str(folder)
    return cfg


def evaluated(cfg: DictConfig, folder: Path) -> DictConfig:
    """Return the stored configuration of a run as that of an evaluation of the weights that the run ended with."""
    # No run that goes on: its folder is only read.
    cfg.run.resume, cfg.model.weights = None, str(folder.absolute())
    return cfg


def _check_longer(cfg: DictConfig, epochs: float) -> None:
    """Refuse a number of epochs with which the run so far would have been another one.

    Args:
        cfg: the stored configuration.
        epochs: the new number.

    Raises:
        InputError: naming the reason.
    """
    before, kind = cfg.run.epochs, cfg.schedule.kind
    if epochs < before:
        raise InputError.of("run.epochs", epochs, f"the run has {before:g} and cannot be cut", f"{before:g} or more")
    if epochs > before and kind in END_WITH_RUN:
        what = f"schedule.kind={kind} spans the whole run: with more epochs, those made so far had had other rates"
        raise InputError.of("run.epochs", epochs, what, f"a new run with run.epochs={epochs:g}")


def stored_choices(folder: Path) -> dict[str, str]:
    """Read which option of each group the stopped run was composed of."""
    path = folder / ".hydra" / "hydra.yaml"
    try:
        return dict(yaml_text.load(path).hydra.runtime.choices)
    except Exception as exc:
        raise InputError(f"run.resume={folder}: its .hydra/hydra.yaml cannot be used: {exc}") from exc


def recorded_overrides(given: Sequence[str]) -> list[str]:
    """Return the overrides that make a command line with `cluster=replay` that of the recorded run.

    Args:
        given: the command line. It wins over the recording: neither its keys nor the keys of a group that it chooses
            are taken from the recording.

    Returns:
        The overrides of the recorded run, without those of cluster, logger, run folder and name. The list is empty if
        the trace is not in a run folder.
    """
    # The bare keys: `+` and `~` say how Hydra applies an override, not what it concerns.
    own = {(parts := text.lstrip("+~").partition("="))[0]: parts[2] for text in given}
    place = _typed(given, "cluster.trace")
    folder = place if place.is_dir() else place.parent
    path = folder / ".hydra" / "overrides.yaml"
    if own.get("cluster") != "replay" or not own.get("cluster.trace") or not path.is_file():
        return []
    try:
        recorded = [str(text) for text in yaml_text.load(path)]
    except Exception as exc:
        raise InputError(f"cluster.trace={place}: its .hydra/overrides.yaml cannot be used: {exc}") from exc
    keys = [text.lstrip("+~").partition("=")[0] for text in recorded]
    # A group's option that is typed rules out the recorded keys of its section: they may not exist in another option.
    taken = [
        text
        for text, key in zip(recorded, keys, strict=True)
        if key not in own and key.split(".")[0] not in (*own, "cluster", "logger", "hydra") and key not in NOT_REPEATED
    ]
    if not any(text.startswith("experiment=") for text in taken):
        return taken
    # An experiment's file makes every command line with it a sweep that is resumed, but the replay is a single run.
    return [*taken, "hydra.mode=RUN", *([] if "run.resume" in own else ["run.resume=null"])]


def recorded_places(given: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return where the run that a command line goes on with, or replays, had its options and modules from.

    Args:
        given: the command line.

    Returns:
        The entries of its search path, and the folders of its modules; of both those that are still there.
    """
    named = [place for key in ("run.resume", "cluster.trace") if (place := _typed(given, key)) != Path()]
    found = [folder / ".hydra" / "hydra.yaml" for place in named for folder in (place, place.parent)]
    path = next((file for file in found if file.is_file()), None)
    if path is None:
        return [], []
    try:
        own = yaml_text.load(path).hydra
        places, folders = [str(place) for place in own.searchpath], [Path(str(own.runtime.cwd))]
    except Exception as exc:  # noqa: BLE001 (a damaged file is refused where the run is continued)
        log.info("%s cannot be read: %s", path, exc)
        return [], []
    there = [place for place in places if "://" in place.removeprefix("file://") or _folder(place).is_dir()]
    return there, [folder for folder in folders if folder.is_dir()]


def _folder(place: str) -> Path:
    return Path(place.removeprefix("file://"))


def _typed(given: Sequence[str], key: str) -> Path:
    """Return the path that a command line gives as the value of a key; an empty one if nothing can be read of it."""
    try:
        last = [o for o in OverridesParser.create().parse_overrides(list(given)) if o.key_or_group == key]
        value = last[-1].value() if last else ""
    except (HydraException, ValueError, RecursionError):
        # What cannot be read is refused later, in a line that names it.
        return Path()
    return expanded(value, key) if isinstance(value, str) else Path()


class EarlierRuns:
    """The runs below `outputs/<name>`; `run.resume=true` looks for the jobs of a sweep among them."""

    def __init__(self, outputs: Path):
        """Read the configurations of all runs below `outputs`, the newest first."""
        # A single run is one folder deep, a job of a sweep two.
        paths = [*outputs.glob("*/.hydra/config.yaml"), *outputs.glob("*/*/.hydra/config.yaml")]
        # The newest first: of several stopped runs with one configuration the last is likely the furthest.
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        self._runs = [(path.parent.parent, identity) for path in paths if (identity := _stored_identity(path))]

    def of(self, job: DictConfig) -> tuple[Path, bool] | None:
        """Look for a run with the configuration of `job` that came to its end, or was stopped and left a checkpoint.

        A failed run is not continued: it would fail again. Nor is a run that some process is writing now.

        Returns:
            Its folder, and whether it came to its end. A finished run is preferred to a stopped one. None if there is
            no such run.
        """
        # Equal configurations make equal runs, whatever command line or sweep they came from.
        identity = _identity(job)
        same = [folder for folder, other in self._runs if other == identity]
        # The same name may stand for other delays by now.
        same = [folder for folder in same if kept_delays.same(job.cluster.compute.delays, folder)]
        # A finished run first, however old: nothing is left to do then.
        for folder in same:
            if _status(folder) in ENDED:
                return folder, True
        # RUNNING too: a killed run could not say that it ended, and the lock tells whether it still runs.
        # PRUNED too: a search that would not prune it, or a sweep that prunes nothing, has it go on.
        stopped = (folder for folder in same if _status(folder) in (INTERRUPTED, PRUNED, RUNNING))
        return next(((folder, False) for folder in stopped if _can_continue(folder)), None)

    def running(self, job: DictConfig) -> Path | None:
        """Return the folder of a run with the configuration of `job` that some process is writing now, if there is one.

        To start the job again beside it would do everything twice.
        """
        identity = _identity(job)
        same = (folder for folder, other in self._runs if other == identity)
        return next((folder for folder in same if folder.is_dir() and folders.is_locked(folder)), None)


def _identity(cfg: Any) -> Any:
    """Return what makes two runs the same.

    It is their configuration without the keys that may change on resuming, and without those of the dataset that say
    only how it is read. `dataset.root` counts: other data may lie elsewhere. A null `dataset.validation` is left out,
    since a dataset's keys have no defaults that a configuration from before them would get.
    """
    # Unresolved, as it is in the file: an interpolation may need Hydra's part, which neither side has here.
    recorded = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(recorded, dict)
    plain = add_new_keys({str(key): value for key, value in recorded.items()})
    if isinstance(dataset := plain.get("dataset"), dict):
        kept = {key: value for key, value in dataset.items() if key == "root" or key not in DATA_PLACE}
        if kept.get("validation") is None:
            kept.pop("validation", None)
        plain["dataset"] = kept
    # A run that goes on may have other threads or another logger, and is the same run.
    run = {key: value for key, value in plain.get("run", {}).items() if not may_accompany(f"run.{key}")}
    return {**{key: value for key, value in plain.items() if not may_accompany(str(key))}, "run": run}


def _stored_identity(path: Path) -> Any:
    """Return the `_identity` of a configuration file, or None if it is not the configuration of a run.

    A key that the file lacks, because it was written before the key existed, gets its default.
    """
    try:
        cfg = yaml_text.load(path)
        if not isinstance(cfg, DictConfig) or "run" not in cfg:
            return None
        # An old class name must not make the same run look like another.
        rename_targets(cfg)
        return _identity(OmegaConf.merge(OmegaConf.structured(Config), cfg))
    except Exception as exc:  # noqa: BLE001 (somebody else's file can cause any exception of its reader)
        log.info("%s cannot be read, and is not counted as an earlier run: %s", path, exc)
        return None


def _can_continue(folder: Path) -> bool:
    return has_checkpoints(folder) and not folders.is_locked(folder)


def _status(folder: Path) -> str | None:
    try:
        return read_summary(folder).get(STATUS)
    except (OSError, ValueError) as exc:  # a damaged folder elsewhere must not stop a sweep
        log.info("%s cannot be read, and is not counted as an earlier run: %s", folder, exc)
        return None
