"""Makes the user's own modules importable: from the working directory, and from beside folders of options.

The user's folder comes last on `sys.path`, so that nothing in it can hide a module that PyTorch or the project needs.
A module in a folder `algorithms/`, `models/` or `data/` of the user's is found under the name that it has there, as
`models.mine`, although the package `models` is the project's: what that lacks is looked for in the user's (`OwnParts`).
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from runner.config.installation import ROOT

SHARED = ("algorithms", "data", "models")
"""Packages of the project that a user's folder may add modules to."""


class OwnParts(importlib.machinery.PathFinder):
    """Finds modules that one of the project's packages lacks in the folders of its name that are on `sys.path`."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where the user's module is; None if it is none of theirs. Python asks this finder last."""
        package, _, module = fullname.partition(".")
        # Further down, as in `models.mine.blocks`, the package of the user's that holds the module says where to look.
        if package not in SHARED or not module or "." in module:
            return None
        # Asked anew each time: a forked process gets its path after this module was imported.
        places = [str(folder / package) for folder in _folders()]
        return super().find_spec(fullname, places, target)


def install() -> None:
    """Have Python ask `OwnParts` in this process, where all other finders have found nothing."""
    if OwnParts not in sys.meta_path:
        sys.meta_path.append(OwnParts)


def add(folders: Iterable[Path]) -> None:
    """Make the modules in some folders importable in this process and in those that it starts by multiprocessing."""
    install()
    for folder in folders:
        # The project's own folder is on the path, or nothing of it could run.
        if folder.resolve() != ROOT and str(folder) not in sys.path:
            sys.path.append(str(folder))


def is_projects(target: str) -> bool:
    """Return whether a dotted name begins with a module of the project's; nothing is imported."""
    package, _, rest = target.partition(".")
    module = ROOT / package / rest.partition(".")[0]
    return package in SHARED and (module.with_suffix(".py").is_file() or module.is_dir())


def is_projects_alone(section: Any) -> bool:
    """Return whether every `_target_` in a section is the project's."""
    if isinstance(section, Mapping):
        targets = [section["_target_"]] if "_target_" in section else []
        return all(map(is_projects, map(str, targets))) and all(map(is_projects_alone, section.values()))
    return not isinstance(section, Sequence) or isinstance(section, str) or all(map(is_projects_alone, section))


def _folders() -> list[Path]:
    """Return the folders on `sys.path` that are not the project's; an empty entry is the working directory."""
    return [folder for folder in map(Path, sys.path) if folder.resolve() != ROOT]
