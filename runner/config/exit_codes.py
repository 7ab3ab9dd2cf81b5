"""Turns an exception into an exit code and at most one line on the terminal."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import InstantiationException

from data import DamagedImage
from runner.config import name_clash, signals
from runner.config.errors import InputError, building, one_line

log = logging.getLogger("dcrun")

WRONG_INPUT = 2
UNEXPECTED = 1
SIGNALLED = 128
"""Exit codes above it are those of a program that a signal stopped: 128 + its number."""


@dataclass
class Ended:
    """How a block under `guard` ended.

    Attributes:
        code: the exit code. The block sets it if it comes to its end.
    """

    code: int = UNEXPECTED


@contextmanager
def guard(folder: Path | None, who: str = "") -> Iterator[Ended]:
    """Turn an exception of the block into an exit code and one line on the terminal.

    Args:
        folder: the run folder, whose `dcrun.log` gets the traceback; None if there is no folder.
        who: names the process in the line, as "rank 3".
    """
    ended = Ended()
    try:
        yield ended
    # No subclass of Exception, and no mistake: Ctrl-C, or another signal, while no run is there to save itself.
    except KeyboardInterrupt as request:
        ended.code = signals.exit_code_of(request)
    except Exception as error:  # noqa: BLE001 - the last resort: logged, and ends in exit code 1
        ended.code = _told(_unwrapped(error), folder, who)


def run_guarded(call: Callable[[], int], folder: Path | None, who: str = "") -> int:
    """Call under `guard`, and return the exit code; `call` returns its own."""
    with guard(folder, who) as ended:
        ended.code = call()
    return ended.code


def _unwrapped(error: Exception) -> Exception:
    """Return the wrong input behind an error of Hydra's `instantiate`, if there is one; else the error."""
    if isinstance(error, InstantiationException):
        try:
            with building():
                # `building` knows how to unwrap; raising inside it is its only way in.
                raise error
        except (InputError, InstantiationException) as found:
            return found
    return error


def tell(error: Exception, who: str) -> int:
    """Say in one line what went wrong before there was a run folder, and return the exit code."""
    return _told(_unwrapped(error), None, who)


def _told(error: Exception, folder: Path | None, who: str) -> int:
    """Say in one line what went wrong, and return the exit code."""
    # A damaged image may be found as late as in training, far from `building`, but it is the user's file all the same.
    wrong = error if isinstance(error, InputError | DamagedImage) else name_clash.explain(error)
    if wrong:
        report(wrong)
        return WRONG_INPUT
    # A message of level INFO goes only to dcrun.log: the terminal gets one line.
    log.info("%s", "".join(traceback.format_exception(error)))
    where = f"traceback in {folder / 'dcrun.log'}" if folder else "HYDRA_FULL_ERROR=1 shows the traceback"
    name = f"{who}: " if who else ""
    print(f"dcrun: {name}{type(error).__name__}: {one_line(str(error))} ({where})", file=sys.stderr)
    trace(error)
    return UNEXPECTED


def report(error: InputError | DamagedImage, who: str = "") -> None:
    """Print the one line about wrong input; `who` begins it, where several processes say the same."""
    print(f"dcrun: {who}{one_line(str(error))}", file=sys.stderr)
    trace(error)


def trace(error: Exception) -> None:
    """Print the traceback if the user asked for it with HYDRA_FULL_ERROR=1."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)


def log_to(folder: Path) -> None:
    """Set up logging in a process without Hydra as Hydra does: all to `dcrun.log`, warnings also to the terminal."""
    file = logging.FileHandler(folder / "dcrun.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    # The terminal has the display; what goes on in detail is in the log.
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    # `force`: libraries that log while they are imported may have installed handlers, with which this does nothing.
    logging.basicConfig(level=logging.INFO, handlers=[file, console], force=True)
