"""Imports libraries that only some loggers need, which are extras of this package."""

import importlib
from types import ModuleType

from runner.config.errors import InputError


def imported(module: str, logger: str) -> ModuleType:
    """Import the library of a logger.

    Args:
        module: the library.
        logger: the option of the group `logger`; the extra that installs the library has the same name.

    Raises:
        InputError: it cannot be imported, in most cases because it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        allowed = f"pip install 'dcrun[{logger}]', or another logger: csv, wandb, none"
        raise InputError(f"logger={logger}: {module} cannot be imported ({error}); allowed: {allowed}") from error
