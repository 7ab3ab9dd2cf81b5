"""Reads YAML files that somebody else may have written: what would stop or fill the process is refused first."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from runner.config.errors import InputError

_BYTES, _NESTED, _ALIASES = 1_000_000, 2000, 20
_CHAINED = re.compile(r"([-?:] ){40}")
# Ten aliases in each of ten levels stand for 10^10 values: PyYAML shares them, whoever walks through them does not.
_ALIAS = re.compile(r"(?m)(?:^|[\s,\[{])\*[\w-]+")


def read_text(path: Path) -> str:
    """Return the text of a YAML file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is a pipe or device, not UTF-8, or larger or nested deeper than any configuration.
    """
    # Opening a pipe would wait for ever for somebody to write to it.
    if path.exists() and not path.is_file():
        raise ValueError("is not a plain file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError(f"is not UTF-8 text ({exc.reason} at byte {exc.start})") from None
    # The C loader recurses without a limit: what is nested deeper than any configuration would end the process.
    if len(text) > _BYTES or max(text.count("["), text.count("{")) > _NESTED or _CHAINED.search(text):
        raise ValueError("is not a configuration: it is too large or nested too deep")
    if len(_ALIAS.findall(text)) > _ALIASES:
        raise ValueError(f"has more than {_ALIASES} YAML aliases")
    return text


def load(path: Path) -> Any:
    """Load a configuration with OmegaConf.

    Raises:
        OSError, ValueError, YAMLError: it cannot be read; the text does not always name the file.
    """
    read_text(path)
    try:
        return OmegaConf.load(path)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def check_options(folders: Iterable[Path], chosen: Iterable[tuple[str, str]]) -> None:
    """Refuse options of the user's own whose files cannot be read.

    Args:
        folders: where they may lie: `--config-dir`.
        chosen: (group, option) as on the command line.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    for folder in folders:
        for group, option in chosen:
            path = folder / group / f"{option}.yaml"
            if not path.exists():
                continue
            try:
                read_text(path)
                OmegaConf.load(path)
            except yaml.YAMLError as exc:
                mark = getattr(exc, "problem_mark", None)
                where = f", line {mark.line + 1}" if mark else ""
                raise InputError(f"{path}{where}: is not YAML ({_problem(exc)}); allowed: keys and values") from exc
            except (OSError, ValueError, RecursionError) as exc:
                problem = "is nested too deep" if isinstance(exc, RecursionError) else (str(exc) or "is no mapping")
                raise InputError(
                    f"{group}={option}: {path} {problem}; allowed: a YAML file of keys and values"
                ) from exc


def _problem(exc: yaml.YAMLError) -> str:
    return str(getattr(exc, "problem", None) or (str(exc).splitlines() or [type(exc).__name__])[0])
