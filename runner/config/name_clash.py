"""Finds a user's module that has the name of one of the project's, as `models.resnet`, once it is asked for.

The project's packages come first on `sys.path`, so `models` is dcrun's. Modules that it lacks are found in the user's
`models/` (`runner.config.own_code`); what the user's `models/__init__.py` or a module of the same name defines is not.
The mere existence of such a folder is not a mistake: many users have a `data/` with data sets.
"""

from __future__ import annotations

import importlib.machinery
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from runner.config import own_code
from runner.config.errors import InputError
from runner.config.installation import NAMES, ROOT


def check_targets(config: Mapping[Any, Any]) -> None:
    """Refuse a `_target_` that a user's module defines and the project's package of the same name lacks.

    Args:
        config: plain dictionaries and lists; every `_target_` below them is checked. Nothing is imported.

    Raises:
        InputError: naming both files.
    """
    for target in _targets(config):
        # Only if ours lacks it: a user's `data/` folder beside a correct `_target_: data.digits.Digits` is no mistake.
        if target.partition(".")[0] in NAMES and _find(target, ROOT) is None and (clash := _clash(target)):
            raise clash


def check_both(config: Any, folder: Path) -> None:
    """Refuse a `_target_` of a user's option that the project and a module in the user's folder both define.

    Args:
        config: the option.
        folder: the user's, which holds the folder of options.

    Raises:
        InputError: naming both files.
    """
    # Unresolved: an interpolation that cannot be resolved is refused where the line is composed.
    plain = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    target = str(plain.get("_target_", "")) if isinstance(plain, Mapping) else ""
    if own_code.is_projects(target) and folder != ROOT and (theirs := _find(target, folder)) and _find(target, ROOT):
        raise _same_name(target, theirs)


def explain(error: BaseException) -> InputError | None:
    """Return the message for a failed import, if a user's module has the name of one of the project's packages.

    Args:
        error: the exception; its causes are examined too.

    Returns:
        The line that names both files; None for any other error.
    """
    cause: BaseException | None = error
    while cause is not None:
        asked = _asked(cause)
        if asked.partition(".")[0] in NAMES and (clash := _clash(asked)):
            return clash
        # Hydra wraps what fails inside a `_target_`, so the import error may be further down.
        cause = cause.__cause__ or cause.__context__
    return None


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _targets(item)


def _asked(error: BaseException) -> str:
    """Return the dotted name that an import or an attribute of a module did not find, or an empty string."""
    # `import models` worked and `models.mine` did not: Hydra looks the parts of a name up with getattr.
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return f"{error.obj.__name__}.{error.name}"
    if not isinstance(error, ImportError) or error.name is None:
        return ""
    # For "from data import Mine" the error has only the module as its name; its text has what is missing.
    lacking = re.match(r"cannot import name '(\w+)' from ", str(error))
    return f"{error.name}.{lacking[1]}" if lacking else error.name


def _clash(asked: str) -> InputError | None:
    name = asked.partition(".")[0]
    # What is loaded already wins over the path: Python does not look again.
    theirs = _loaded_from_elsewhere(name)
    if theirs is None:
        # The current folder counts even if it is not on the path: the user means it.
        folders = [Path.cwd(), *(Path(entry).resolve() for entry in sys.path)]
        theirs = next((file for folder in folders if folder != ROOT and (file := _find(asked, folder))), None)
        if _joins(asked):
            return None
    if theirs is None:
        return None
    return _same_name(asked, theirs)


def _same_name(asked: str, theirs: Path) -> InputError:
    name = asked.partition(".")[0]
    ours = ROOT / name / "__init__.py"
    same = f"{name} is dcrun's ({ours if ours.exists() else ours.parent})"
    return InputError(f"{asked}: {same}, and yours ({theirs}) has the same name; rename yours")


def _joins(asked: str) -> bool:
    """Return whether a name is of a module that the project's package lacks, so that the user's is imported."""
    module = ".".join(asked.split(".")[:2])
    return not own_code.is_projects(module) and own_code.OwnParts.find_spec(module) is not None


def _loaded_from_elsewhere(name: str) -> Path | None:
    module = sys.modules.get(name)
    # A package without `__init__.py` has no file, only a path.
    for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())):
        if place and not Path(place).resolve().is_relative_to(ROOT):
            return Path(place)
    return None


def _find(asked: str, folder: Path) -> Path | None:
    """Find the file below a folder that defines a dotted name, without importing it.

    Args:
        asked: a name as `models.mine.Net`: modules first, then what the last of them defines.
        folder: the folder that would hold the first module.

    Returns:
        The file, or the folder of a package without `__init__.py`; None if no file defines the name.
    """
    parts = asked.split(".")
    file: Path | None = None
    places = [str(folder)]
    for number, part in enumerate(parts):
        # Looked for as the import system would, but nothing of the user's is executed.
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: number + 1]), places) if places else None
        if spec is None:
            return file if file and _defines(file, part) else None
        file = Path(spec.origin) if spec.origin else None
        places = list(spec.submodule_search_locations or ())
    # Every part was a module.
    return file or Path(places[0])


def _defines(file: Path, name: str) -> bool:
    """Return whether the text of a module has a name; True for compiled ones, whose text cannot be read."""
    # By its text: importing a user's module to look for a name would execute it.
    return file.suffix != ".py" or re.search(rf"\b{re.escape(name)}\b", file.read_text(errors="replace")) is not None
