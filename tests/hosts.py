"""Separate hosts for tests: network namespaces on one switch, whose wires can be cut."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from machines import Machine, machines, missing


@functools.cache
def _why_not() -> str | None:
    return missing()


@contextmanager
def hosts(count: int) -> Iterator[list[Machine]]:
    """Hosts on one switch; the test is skipped where none can be made."""
    if reason := _why_not():
        pytest.skip(reason)
    with machines(count) as made:
        yield made
