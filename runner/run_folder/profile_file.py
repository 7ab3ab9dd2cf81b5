"""The rows of a profile, a process each, as `profile.json` and as a table.

The file is in Chrome's trace event format (https://ui.perfetto.dev and chrome://tracing show it).
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from runner.run_folder.contents import PROFILE
from runner.run_folder.jsonl import replace


class Span(NamedTuple):
    """A measured call.

    Attributes:
        label: its name.
        category: what it counts for.
        begin: by `time.monotonic`.
        took: seconds.
    """

    label: str
    category: str
    begin: float
    took: float


@dataclass
class ProfileRow:
    """What one process did.

    Attributes:
        name: of the process.
        seconds: by what they went into.
        spans: the calls that are shown.
        left_out: how many more there were.
    """

    name: str
    seconds: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    left_out: int = 0


def pack(rows: Sequence[ProfileRow]) -> bytes:
    """Return rows as bytes for a process of another machine, whose monotonic clock began at another time."""
    plain = [[row.name, row.seconds, row.spans, row.left_out] for row in rows]
    return zlib.compress(json.dumps([_wall_begin(), plain]).encode())


def unpack(raw: bytes) -> list[ProfileRow]:
    """Return the rows that `pack` made these bytes of, by this process's clock."""
    began, plain = json.loads(zlib.decompress(raw))
    late = began - _wall_begin()
    return [
        ProfileRow(name, seconds, [Span(label, kind, begin + late, took) for label, kind, begin, took in spans], left)
        for name, seconds, spans, left in plain
    ]


def _wall_begin() -> float:
    """Return when the monotonic clock began, by the wall clock."""
    return time.time() - time.monotonic()


def write(rows: Sequence[ProfileRow], folder: Path, console: Console) -> None:
    """Write `profile.json` and print where the time went.

    Args:
        rows: the run's own process, whose seconds add up to the whole, and then the others.
        folder: of the run.
        console: where to print.
    """
    own, others = rows[0], rows[1:]
    total = sum(own.seconds.values())
    replace(folder / PROFILE, json.dumps(_document(rows, total)).encode())
    table = Table(title=f"where {total:,.1f} s went", show_header=False)
    for name, took in own.seconds.items():
        table.add_row(name, f"{took:,.2f} s", f"{100 * took / total:.1f} %")
    for row in others:
        table.add_section()
        # What a process did besides is waiting, as far as it reports at all.
        for name, took in row.seconds.items():
            if took >= 0.001 * total:
                table.add_row(f"{row.name}: {name}", f"{took:,.2f} s", f"{100 * took / total:.1f} %")
    console.print(table)
    if left := sum(row.left_out for row in rows):
        console.print(f"{PROFILE} does not show {left:,} more calls, which the table counts")


def _document(rows: Sequence[ProfileRow], total: float) -> dict[str, Any]:
    # Another machine's process may have begun before this one.
    began = min(span.begin for row in rows for span in row.spans)
    events: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        place = {"pid": number, "tid": 0}
        if len(rows) > 1:
            events.append({"name": "process_name", "ph": "M", **place, "args": {"name": row.name}})
            events.append({"name": "process_sort_index", "ph": "M", **place, "args": {"sort_index": number}})
        # Complete events: a begin and a length, in microseconds.
        events += [
            {
                "name": span.label,
                "cat": span.category,
                "ph": "X",
                "ts": round(1e6 * (span.begin - began), 1),
                "dur": round(1e6 * span.took, 1),
                **place,
            }
            for span in row.spans
        ]
    about = {
        "seconds": rows[0].seconds,
        "total": total,
        "left_out": rows[0].left_out,
        "others": {row.name: row.seconds for row in rows[1:]},
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}
