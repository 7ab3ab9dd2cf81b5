"""Writes the weights that a run ends with, as a file that others load without this project."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

FILE = "weights.safetensors"


def write(folder: Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a state dict to the folder's `weights.safetensors`; a file that was there stays until the new one is whole.

    Args:
        folder: the run folder.
        state: arrays by name, which may be views of one vector.

    Raises:
        OSError: it cannot be written, as on a full disk. No temporary file is left.
    """
    path = folder / FILE
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # safetensors makes files that nobody but the user may read. This one gets what the user's umask says.
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(dict(state), temporary)
        temporary.chmod(mode)
        # safetensors does not flush. Renamed before its bytes are on the disk, the file could be empty after a power
        # cut.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise _as_os_error(error) from error
    # A Ctrl-C leaves no temporary file either.
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _as_os_error(error: SafetensorError) -> OSError:
    """Return what the operating system said to safetensors, which has it in its text only."""
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))
