"""Wrong input: the exception for it, and the line that is printed about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException

MOST_SHOWN = 1000
"""Letters of a value that a message repeats."""


class InputError(ValueError):
    """Something the user gave cannot be used. Its text is one line; `dcrun` prints it and exits with code 2."""

    def __init__(self, message: str):
        """Fold `message` into one line."""
        super().__init__(one_line(message))

    @classmethod
    def of(cls, key: str, value: object, wrong: str, allowed: str) -> "InputError":
        """Build `<key>=<value>: <wrong>; allowed: <allowed>`, the key as the user types it."""
        return cls(f"{key}={shown(value)}: {wrong}; allowed: {allowed}")


def one_line(text: str) -> str:
    """Join the lines of `text`, so that one mistake is one line on the terminal; control characters are written out."""
    # Hydra's and OmegaConf's messages have a line for each detail; joined, they stay one line without losing any.
    joined = "; ".join(part for line in text.splitlines() if (part := " ".join(line.split()).rstrip(";")))
    # A terminal would do what they say.
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found[0].encode("unicode_escape").decode(), joined)


def shown(value: object) -> str:
    """Write a value as it is typed on the command line."""
    if value is None:
        return "null"
    # Before numbers: a bool is an int in Python, and is typed as true or false.
    if isinstance(value, bool):
        return str(value).lower()
    # OmegaConf turns `epochs=10` into 10.0, but the message shows what was typed.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(shown(item) for item in value) + "]"
    text = str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(text)} letters)"


@contextmanager
def building() -> Iterator[None]:
    """Turn what goes wrong while a run is built into an `InputError`.

    Put it around the construction of data set, model, algorithm and executors. There a `ValueError` or a missing or
    unreadable file comes from what the user asked for. Later, in training, such an error is a defect and keeps its
    traceback. Hydra wraps what a `_target_` raises in an `InstantiationException`, which is unwrapped here.

    Raises:
        InputError: in place of `ValueError`, `OSError`, or an unknown or missing argument of a `_target_`.
    """
    try:
        yield
    # Before ValueError, which it is: its text is finished, and it would only be wrapped once more.
    except InputError:
        raise
    except InstantiationException as exc:
        # Only what a constructor raised by intention; any other cause is a defect and keeps its traceback.
        cause = exc.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise InputError(str(cause)) from exc
        if isinstance(cause, TypeError):
            raise _wrong_argument(_target_section(exc), str(cause)) from exc
        # Hydra's words for a `_target_` that is found but cannot be called; there is no cause.
        if value := re.match(r"Expected a callable target, got '(.*)' of type '(.*)'", str(exc), re.DOTALL):
            what = f"is the value {shown(value[1])} of type {value[2]}"
            raise InputError(f"{_target_section(exc)}._target_: {what}; allowed: a class or a function") from exc
        if blocked := re.match(r"Target '(.*?)' is blocklisted", str(exc)):
            raise InputError.of(
                f"{_target_section(exc)}._target_", blocked[1], "can run any command", "a class or a function of yours"
            ) from exc
        if isinstance(cause, MemoryError) or "can't allocate memory" in str(cause):
            what = "asks for more memory than there is"
            raise InputError(f"{_target_section(exc)}: {what} ({_first_line(cause)}); allowed: less of it") from exc
        raise
    except (ValueError, OSError) as exc:
        raise InputError(str(exc)) from exc


def _first_line(cause: BaseException | None) -> str:
    """Return what a memory error asks for: PyTorch's in its first line, NumPy's, whose text is a shape and a type."""
    return (str(cause).splitlines() or ["no size is told"])[0].rpartition("DefaultCPUAllocator: ")[2]


def _target_section(exc: InstantiationException) -> str:
    # Hydra has no attribute for the place: it is only in the message, after the innermost error.
    lines = [line for line in str(exc).splitlines() if line.startswith("full_key: ")]
    return lines[-1].removeprefix("full_key: ") if lines else ""


def _wrong_argument(section: str, cause: str) -> InputError:
    # Python's own text for a keyword that a constructor lacks, which for the user is a mistyped key.
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", cause):
        return InputError(f"{section}.{unknown[1]}: unknown key; dcrun --cfg job -p {section} lists the known ones")
    return InputError(f"{section}: {cause.splitlines()[0]}")
