"""Refuses a method, model or data set whose code cannot be found, in one line that says where it was looked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra._internal.utils import _locate
from omegaconf import DictConfig, OmegaConf

from runner.config import name_clash
from runner.config.errors import InputError
from runner.config.installation import ROOT

GROUPS = ("algorithm", "model", "dataset")
"""Sections that name their code by `_target_`."""


def check_found(cfg: DictConfig) -> None:
    """Import what every `_target_` of the configuration names.

    Raises:
        InputError: there is no such module or class, or its module imports one that is missing or is no Python.
        Exception: whatever else the module raises while it is imported.
    """
    for group in GROUPS:
        for key, target in _targets(OmegaConf.to_container(cfg[group], resolve=True), group):
            try:
                # Not `hydra.utils.get_object`, which logs the error as well: a sweep would print it above its one line.
                _locate(target)
            except Exception as error:
                cause = _cause(error)
                wrong = name_clash.explain(error) or _missing(key, target, cause)
                if wrong is None:
                    raise cause from error
                raise wrong from error


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield key and value of each `_target_` in a section."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield f"{key}._target_", node["_target_"]
        for name, child in node.items():
            yield from _targets(child, f"{key}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _targets(child, f"{key}[{number}]")


def _cause(error: Exception) -> Exception:
    """Return what Hydra's error about a name that it cannot locate was raised from."""
    return error.__cause__ if isinstance(error.__cause__, Exception) else error


def _missing(key: str, target: str, cause: Exception) -> InputError | None:
    """Return the message for a cause that is the user's to mend; None for any other."""
    if isinstance(cause, SyntaxError):
        return InputError.of(key, target, f"{cause.filename}, line {cause.lineno}: {cause.msg}", "Python modules")
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        module, _, lacking = cause.name.rpartition(".")
        if target == cause.name and module in sys.modules:
            return InputError.of(key, target, f"{module} has no {lacking}", "a class or function that is there")
        if f"{target}.".startswith(f"{cause.name}."):
            return InputError.of(key, target, f"there is no {cause.name}", f"what is installed, or lies in {_places()}")
        wrong = f"its module imports {cause.name}, which is not there"
        return InputError.of(key, target, wrong, f"what is installed, or lies in {_places()}")
    if isinstance(cause, AttributeError):
        return InputError.of(key, target, str(cause), "a class or function that is there")
    if isinstance(cause, ImportError):
        return InputError.of(key, target, str(cause), "imports that can be found")
    return None


def _places() -> str:
    """Return the folders of the user's that modules are looked for in."""
    installed = (Path(sys.prefix), Path(sys.base_prefix), ROOT)
    folders = dict.fromkeys(str(Path(entry).resolve()) for entry in sys.path)
    return ", ".join(folder for folder in folders if not any(Path(folder).is_relative_to(own) for own in installed))
