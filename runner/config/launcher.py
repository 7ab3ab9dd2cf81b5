"""What a launcher such as `torchrun` says in the environment of the processes that it starts.

Nothing here imports torch, so a mistake is said at once. Other launchers set some of these variables too.
"""

import os
import socket

from runner.config.errors import InputError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What processes need to find each other."""


def world_size() -> int:
    """Return how many processes the launcher started, 1 without one.

    Raises:
        InputError: the variable is no such number.
    """
    # Without MASTER_PORT: who sets all but that has made a mistake, which `check_complete` names.
    joined = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return _number("WORLD_SIZE", 1) if joined else 1


def rank() -> int:
    """Return the number of this process among those that the launcher started, 0 without one.

    Raises:
        InputError: the variable is no such number.
    """
    world = world_size()
    # A job of one process may have been given any number by its scheduler.
    return _number("RANK", 0, world - 1) if world > 1 else 0


def speaks() -> bool:
    """Return whether this process tells of a mistake that its neighbours find as well.

    It is the first one of its machine: what all ranks find is said once on each terminal. A launcher that does not
    number the processes of a machine lets all of them speak, because nobody knows whether rank 0 is here.
    """
    return os.environ.get("LOCAL_RANK", "0") == "0"


def prefix() -> str:
    """Return how a line of this process begins if several may say the same; empty where one speaks for all."""
    # One process, or several of which one is chosen to speak for all.
    alone = "RANK" not in os.environ or "LOCAL_RANK" in os.environ
    return "" if alone else f"rank {os.environ['RANK']}: "


def check_complete() -> None:
    """Refuse an environment from which processes cannot find each other.

    Raises:
        InputError: naming what is missing, or what is no number.
    """
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        what = f"{world_size()} processes were started (WORLD_SIZE), and {missing[0]} is not set"
        raise InputError(f"{what}; allowed: {', '.join(NEEDED)}, as torchrun sets them, or none of them")
    _number("MASTER_PORT", 1, 65535)
    rank()


def machine() -> str | None:
    """Return the number of this machine among the launcher's, None if the launcher does not number them."""
    return os.environ.get("GROUP_RANK")


def one_machine() -> bool:
    """Return whether the launcher says that all processes run on this machine."""
    # None is no empty string: without both variables nothing is known.
    return os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE", "")


def launch() -> str | None:
    """Return a name of this launch that no other has and that stays when the launcher starts the processes again.

    torchrun makes a folder for a launch, and in it a file for each attempt and process. None if nothing is said.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
    parts = file.split("/attempt_")
    return f"{socket.gethostname()}:{parts[0]}" if len(parts) == 2 else None


def _number(name: str, lowest: int, highest: int | None = None) -> int:
    text = os.environ[name]
    allowed = f"whole numbers from {lowest}" if highest is None else f"{lowest} to {highest}"
    # `int` would take " 4", "+4" and Arabic digits as well.
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= (highest or int(text)):
        raise InputError.of(name, text, "is not what a launcher sets", f"{allowed}, or none of {', '.join(NEEDED)}")
    return int(text)
