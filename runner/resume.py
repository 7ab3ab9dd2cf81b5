"""Finds what is needed to continue a stopped run in its own folder."""

from collections.abc import Iterable
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from runner.config import Config
from runner.errors import InputError

ALLOWED = ("run.resume", "run.threads", "logger")
"""Keys that may change when a run is continued; all others would make it another run."""


def run_folder(resume: str) -> Path:
    """Returns the folder that `run.resume=<folder>` names.

    Raises:
        InputError: if it is no run folder.
    """
    folder = Path(resume)
    if not folder.is_dir():
        raise InputError.of("run.resume", resume, "no such folder", "the folder of a stopped run, as outputs/dcrun/...")
    if not (folder / ".hydra" / "config.yaml").is_file():
        wrong = "is no run folder (it has no .hydra/config.yaml)"
        raise InputError.of("run.resume", resume, wrong, "the folder of a stopped run")
    return folder


def stored_config(folder: Path, typed: DictConfig, overrides: Iterable[Override]) -> DictConfig:
    """Reads the configuration of a stopped run and applies the few overrides that may accompany `run.resume`.

    Args:
        folder: the run folder.
        typed: what the present command line composes to; its values of the allowed keys are taken.
        overrides: the present command line.

    Raises:
        InputError: for an override that would change the run, or a stored configuration of another version.
    """
    cfg = OmegaConf.structured(Config)
    try:
        cfg = OmegaConf.merge(cfg, OmegaConf.load(folder / ".hydra" / "config.yaml"))
    except Exception as exc:
        raise InputError(f"run.resume={folder}: its .hydra/config.yaml cannot be used: {exc}") from exc
    assert isinstance(cfg, DictConfig)
    for override in overrides:
        key = override.key_or_group
        if key not in ALLOWED and not key.startswith("logger."):
            wrong = "cannot change when a run is continued (run.resume)"
            allowed = "run.resume, run.threads, logger, logger.<key>"
            raise InputError(f"{override.input_line}: {wrong}; allowed: {allowed}")
        if key != "run.resume":
            OmegaConf.update(cfg, key, OmegaConf.select(typed, key), merge=False)
    cfg.run.resume = str(folder)
    return cfg


def stored_choices(folder: Path) -> dict[str, str]:
    """Reads which option of each group the stopped run was composed of."""
    path = folder / ".hydra" / "hydra.yaml"
    try:
        return dict(OmegaConf.load(path).hydra.runtime.choices)
    except Exception as exc:
        raise InputError(f"run.resume={folder}: its .hydra/hydra.yaml cannot be used: {exc}") from exc
