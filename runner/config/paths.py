"""Paths between a shell, Hydra's grammar and the file system: a name may hold any character."""

import re
import shlex
from pathlib import Path

from runner.config.errors import InputError


def expanded(value: str, key: str) -> Path:
    """Return the path that a user typed, with `~` for the home folder, which a shell leaves alone after `key=`.

    Raises:
        InputError: there is no such home, or Hydra cannot keep the name.
    """
    if "${" in value:
        raise InputError.of(key, value, "holds ${, which Hydra takes for an interpolation", "any other name")
    try:
        return Path(value).expanduser()
    except RuntimeError as exc:
        raise InputError.of(key, value, f"cannot be found ({exc})", "a path without ~") from exc


def quoted(value: str) -> str:
    """Quote a value so that Hydra's grammar takes it as it is."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def home_quoted(override: str) -> str:
    """Quote the value of an override that is a path from the home folder: Hydra's grammar does not know `~`."""
    found = re.fullmatch(r"([^=]+)=(~[A-Za-z0-9_./+@%-]*)", override)
    return f"{found[1]}={quoted(found[2])}" if found else override


def as_typed(key: str, value: object) -> str:
    """Return `key=value` as it can be typed in a shell; where it must be quoted, for Hydra and for the shell."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./+@%-]+", text):
        return f"{key}={text}"
    # The form that is read best, for names without what means something inside these quotes.
    return f"'{key}=\"{text}\"'" if not re.search(r"['\"\\]", text) else shlex.quote(f"{key}={quoted(text)}")
