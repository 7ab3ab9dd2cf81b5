"""A run as the report sees it, whether it was read from its folder or from an archive."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.config.old_names import add_new_keys
from runner.run_folder.summary_keys import ENDED, STATUS, TIMING_ONLY

SPANS = 240
"""How many spans of a run's timeline are shown: the whole timeline of a long run is far too long for a page."""

_NUMBERS = (float, int)


@dataclass
class Run:
    """What a run left behind. What is read only on demand comes from `FolderRun` or `ArchivedRun`.

    Attributes:
        folder: where it lies; of an archived run the archive.
        name: its path below the place that was searched, as one would point at it.
        summary: `summary.json`; empty if there is none.
        rows: the lines of `metrics.jsonl`; what cannot be read is left out.
        config: the composed configuration, sections as dictionaries.
        overrides: the command line.
        problems: what could not be read, in words.
    """

    folder: Path
    name: str
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The configuration with dotted keys, as `schedule.lr`; lists stay lists."""
        return dict(_flattened(add_new_keys(self.config)))

    @property
    def status(self) -> str:
        """How the run ended, or 'running'; 'broken' if its summary cannot be read."""
        status = self.summary.get(STATUS)
        return status if isinstance(status, str) else "broken"

    @property
    def ended(self) -> bool:
        """Whether the run went as far as it could: a stopped or running one has measured nothing yet."""
        return self.status in ENDED

    @property
    def timing_only(self) -> bool:
        """Whether the clock alone ran: nothing was trained, so the run has no place among those that were."""
        # A run that was killed before its summary has it in its configuration.
        return bool(self.summary.get(TIMING_ONLY) or self.flat.get(f"run.{TIMING_ONLY}"))

    @property
    def seed(self) -> int | None:
        """The run's seed, if known."""
        # A run that was killed before its summary still has its seed in the configuration.
        seed = self.summary.get("seed", self.config.get("seed"))
        return seed if isinstance(seed, int) else None

    def value(self, key: str) -> Any:
        """Look a setting up: in the summary, in the configuration, then among the groups' options.

        Args:
            key: as `workers`, `algorithm`, `schedule.lr`.

        Returns:
            the value, None if the run does not know it.
        """
        # The summary says what was used, as the number of workers that an algorithm
        # chose; the configuration has null there.
        if (found := self.summary.get(key)) is not None:
            return found
        if key in self.flat:
            return self.flat[key]
        # `choices` may read a long file, and no group has a dot in its name.
        return self.choices.get(key) if "." not in key else None

    def number(self, key: str) -> float | None:
        """Return a finite number of the summary, else None."""
        return finite(self.summary.get(key))

    def curve(self, key: str) -> list[float | None]:
        """Return a column of the metrics; None in the place of a row that has no finite number."""
        # Kept: tables, claims and figures ask for the same few columns again and again.
        if (known := self._curves.get(key)) is None:
            known = self._curves[key] = [finite(row.get(key)) for row in self.rows]
        return known

    @cached_property
    def _curves(self) -> dict[str, list[float | None]]:
        return {}

    def layers(self, quantity: str) -> list[dict[str, Any]]:
        """Return the rows of `layers.jsonl` that have a quantity, as `variance_factor`, per layer."""
        return [row for row in self.layer_rows() if isinstance(row.get(quantity), Mapping)]

    @property
    def choices(self) -> dict[str, Any]:
        """The option chosen of each config group."""
        return {}

    def layer_rows(self) -> list[dict[str, Any]]:
        """Return the rows of `layers.jsonl`."""
        return []

    def workers(self) -> dict[str, Any]:
        """Return `workers.json`: what each worker did in total, and the staleness histogram; empty if there is none."""
        return {}

    def timeline(self) -> list[dict[str, Any]]:
        """Return the first spans of `timeline.jsonl`, at most `SPANS`."""
        return []


def finite(value: Any) -> float | None:
    """Return the value if it is a finite number, else None."""
    # By type: True is an int in Python, and would be drawn as 1. What is read from JSON has no other types.
    return value if type(value) in _NUMBERS and math.isfinite(value) else None


def _flattened(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        # An empty section is kept as a value: else runs with and without it would look alike.
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
