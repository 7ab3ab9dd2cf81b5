"""Checks of a method's options: what is wrong is one line that names the key, the value and what is allowed."""

from __future__ import annotations

MOST = 1e30
"""The largest factor of a vector; PyTorch takes none beyond float32, and products with it must stay below too."""


def in_range(name: str, value: float, low: float, high: float = float("inf"), *, open_high: bool = False) -> float:
    """Check that `low <= value <= high` (`< high` with `open_high`), value finite, and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    allowed = f"{name} >= {low:g}"
    if high != float("inf"):
        allowed = f"{low:g} <= {name} {'<' if open_high else '<='} {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"algorithm.{name}={value}: is not a number; allowed: {allowed}")
    if low <= value and high == float("inf") and MOST < value < high:
        raise ValueError(f"algorithm.{name}={value}: is too large for float32; allowed: {allowed} and <= {MOST:g}")
    if not (low <= value <= high) or value == float("inf") or (open_high and value == high):
        raise ValueError(f"algorithm.{name}={value}: out of range; allowed: {allowed}")
    return value


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Check that `value` is one of `allowed` and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"algorithm.{name}={value}: unknown; allowed: {', '.join(allowed)}")
    return value


def flag(name: str, value: bool) -> bool:
    """Check that `value` is true or false and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if not isinstance(value, bool):
        raise ValueError(f"algorithm.{name}={value}: is neither true nor false; allowed: true, false")
    return value


def integer(name: str, value: int) -> int:
    """Check that `value` is an integer and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"algorithm.{name}={value}: is not a whole number; allowed: integers")
    return value


def positive(name: str, value: float) -> float:
    """Check that `value` is a finite number above 0, by which dual methods divide, and return it.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if in_range(name, value, 0) == 0:
        raise ValueError(f"algorithm.{name}={value}: a dual method divides by it; allowed: {name} > 0")
    return value
