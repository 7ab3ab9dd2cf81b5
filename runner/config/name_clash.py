"""Modules of the user's with the name of one of the project's, as `models`: found when one is asked for, not before.

The project's packages come first on `sys.path`, so `models` is dcrun's, and a user's `models/mine.py` cannot be
imported beside it. A folder of that name alone is no mistake: many have a `data/` with data sets in it.
"""

from __future__ import annotations

import importlib.machinery
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from runner.config.errors import InputError
from runner.config.installation import NAMES, ROOT


def check_targets(config: Mapping[Any, Any]) -> None:
    """Refuse a `_target_` that a package of the project lacks and a module of the user's of the same name has.

    Args:
        config: plain dictionaries and lists; every `_target_` below it is looked at. Nothing is imported.

    Raises:
        InputError: naming both files.
    """
    for target in _targets(config):
        if target.partition(".")[0] in NAMES and _find(target, ROOT) is None and (clash := _clash(target)):
            raise clash


def explain(error: BaseException) -> InputError | None:
    """Return what to say of an import that failed, if a user's module has the name of one of the project's.

    Args:
        error: what was raised; the errors that it came from are looked at too.

    Returns:
        The line that names both files; None for any other error.
    """
    cause: BaseException | None = error
    while cause is not None:
        asked = _asked(cause)
        if asked.partition(".")[0] in NAMES and (clash := _clash(asked)):
            return clash
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
    """Return the dotted name that an import or a look into a module did not find, or an empty string."""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return f"{error.obj.__name__}.{error.name}"
    if not isinstance(error, ImportError) or error.name is None:
        return ""
    # "from data import Mine": the error's name is the module, what it lacks is told in the text alone.
    lacking = re.match(r"cannot import name '(\w+)' from ", str(error))
    return f"{error.name}.{lacking[1]}" if lacking else error.name


def _clash(asked: str) -> InputError | None:
    name = asked.partition(".")[0]
    theirs = _loaded_from_elsewhere(name)
    if theirs is None:
        # The current folder too: the user means it, even where it is not on the path.
        folders = [Path.cwd(), *(Path(entry).resolve() for entry in sys.path)]
        theirs = next((file for folder in folders if folder != ROOT and (file := _find(asked, folder))), None)
    if theirs is None:
        return None
    ours = ROOT / name / "__init__.py"
    same = f"{name} is dcrun's ({ours if ours.exists() else ours.parent})"
    return InputError(f"{asked}: {same}, and yours ({theirs}) has the same name; rename yours")


def _loaded_from_elsewhere(name: str) -> Path | None:
    module = sys.modules.get(name)
    for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())):
        if place and not Path(place).resolve().is_relative_to(ROOT):
            return Path(place)
    return None


def _find(asked: str, folder: Path) -> Path | None:
    """Find the file below a folder that has what a dotted name says, without importing it.

    Args:
        asked: as `models.mine.Net`; modules first, then what the last of them defines.
        folder: where the first module would lie.

    Returns:
        The file; a folder for a package without `__init__.py`; None if there is none that has it.
    """
    parts = asked.split(".")
    file: Path | None = None
    places = [str(folder)]
    for number, part in enumerate(parts):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: number + 1]), places) if places else None
        if spec is None:
            return file if file and _defines(file, part) else None
        file = Path(spec.origin) if spec.origin else None
        places = list(spec.submodule_search_locations or ())
    return file or Path(places[0])


def _defines(file: Path, name: str) -> bool:
    """Tell whether a module's text has a name; compiled ones have no text and may have any."""
    return file.suffix != ".py" or re.search(rf"\b{re.escape(name)}\b", file.read_text(errors="replace")) is not None
