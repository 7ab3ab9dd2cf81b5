"""The last table of a run of the clock alone: throughput, staleness and waiting in the place of errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.run_folder import columns
from runner.run_folder.summary_keys import (
    BYTES_SENT,
    EPOCH_SECONDS,
    EVENTS,
    EVENTS_PER_SECOND,
    SHARES,
    VIRTUAL_GRADIENTS,
    VIRTUAL_SAMPLES,
)

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def timing_rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the table's rows, label and text, as far as the summary has them."""

    def cell(key: str) -> str:
        value = summary.get(key)
        return "" if value is None else number_text(value)

    samples, gradients, mean, largest, epoch, events, rate = map(
        cell,
        (
            VIRTUAL_SAMPLES,
            VIRTUAL_GRADIENTS,
            columns.STALENESS_MEAN,
            columns.STALENESS_MAX,
            EPOCH_SECONDS,
            EVENTS,
            EVENTS_PER_SECOND,
        ),
    )
    shares = [
        f"{key.removesuffix('_share')} {100 * summary[key]:.1f} %"
        for key in SHARES.values()
        if summary.get(key) is not None
    ]
    sent = summary.get(BYTES_SENT)
    return {
        "throughput": samples and f"{samples} samples and {gradients} gradients per virtual s",
        "an epoch": epoch and f"{epoch} virtual s",
        "staleness": mean and f"mean {mean}, largest {largest}",
        "a worker's time": ", ".join(shares),
        "sent": "" if sent is None else bytes_text(sent),
        "events": events + (f", {rate} a second" if rate else ""),
    }


def number_text(number: float) -> str:
    """Return a number with four digits, or as a whole one with its thousands apart."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def bytes_text(count: float) -> str:
    """Return a number of bytes with three digits and its unit, in powers of 1,000."""
    for unit in _UNITS[:-1]:
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} {_UNITS[-1]}"
