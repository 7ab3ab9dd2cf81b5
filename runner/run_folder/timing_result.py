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

    def cell(key: str, form: str, unit: str = "") -> str:
        value = summary.get(key)
        return "" if value is None else f"{format(value, form)}{unit}"

    samples, gradients = (cell(key, ",.4g") for key in (VIRTUAL_SAMPLES, VIRTUAL_GRADIENTS))
    mean, largest = cell(columns.STALENESS_MEAN, ".4g"), cell(columns.STALENESS_MAX, "d")
    shares = [
        f"{key.removesuffix('_share')} {100 * summary[key]:.1f} %"
        for key in SHARES.values()
        if summary.get(key) is not None
    ]
    sent = summary.get(BYTES_SENT)
    return {
        "throughput": samples and f"{samples} samples and {gradients} gradients per virtual s",
        "an epoch": cell(EPOCH_SECONDS, ",.4g", " virtual s"),
        "staleness": mean and f"mean {mean}, largest {largest}",
        "a worker's time": ", ".join(shares),
        "sent": "" if sent is None else bytes_text(sent),
        "events": cell(EVENTS, ",d") + (f", {rate} a second" if (rate := cell(EVENTS_PER_SECOND, ",.0f")) else ""),
    }


def bytes_text(count: float) -> str:
    """Return a number of bytes with three digits and its unit, in powers of 1,000."""
    for unit in _UNITS[:-1]:
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} {_UNITS[-1]}"
