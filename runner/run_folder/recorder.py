"""Writes the trace of a run; `runner.run_folder.trace` describes it.

Every run on processes with a parameter server records, so a message must cost little: its line is formatted, and lines
are written to the file 256 at a time. Rare lines (a lost worker, a barrier, a stop) are written at once, with all lines
before them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.run_folder.jsonl import to_line, truncate_lines
from runner.run_folder.trace import BITS, FILE

log = logging.getLogger("dcrun")

BUFFERED = 256
"""Number of messages between two writes to the file."""


class Recorder:
    """Writes a trace. If a trace cannot be written, a warning says so and the run goes on without it.

    Args:
        folder: the run folder.
        about: the first line, from `trace_facts`.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        self.about = about
        self.lines: int | None = None
        self._pending: list[str] = []
        self._failed = False

    def begin(self) -> None:
        """Begin the file, unless `load_state_dict` continued it."""
        # A run that goes on appends; a new one in the same folder begins the file anew.
        if self.lines is None:
            truncate_lines(self.path, 0)
            self.lines = 0
            self._pending.append(to_line(self.about))
            self.flush()

    def push(
        self,
        worker: int,
        *,
        pulled: int,
        version: int,
        batch: int,
        time: float,
        steps: int = 1,
        compute: float = 0.0,
        waited: float = 0.0,
        served: float = 0.0,
        took: float | None = None,
        withheld: float = 0.0,
    ) -> None:
        """Note a handled message; `Record` describes the numbers."""
        more = "" if took is None or took == compute else f', "took": {took!r}'
        more += f', "withheld": {withheld!r}' if withheld else ""
        more += "" if steps == 1 else f', "steps": {steps}'
        self._pending.append(
            # Formatted by hand, since every message pays for it. `!r` writes a float that reads back as the same
            # number.
            f'{{"worker": {worker}, "pulled": {pulled}, "version": {version}, "batch": {batch}, "time": {time!r}, '
            f'"compute": {compute!r}, "waited": {waited!r}, "served": {served!r}{more}}}\n'
        )
        # A kill costs the buffered lines, and with them only messages after the last checkpoint, which flushes.
        if len(self._pending) >= BUFFERED:
            self.flush()

    def stopped(
        self,
        worker: int,
        *,
        pulled: int,
        version: int,
        batch: int,
        time: float,
        steps: int = 1,
        compute: float = 0.0,
        waited: float = 0.0,
        served: float = 0.0,
    ) -> None:
        """Note that a worker has dropped what it computed and pulled anew; `Record` describes the numbers."""
        numbers = {"pulled": pulled, "version": version, "batch": batch, "time": time}
        numbers |= {"steps": steps} if steps > 1 else {}
        self._pending.append(
            to_line({"stopped": worker, **numbers, "compute": compute, "waited": waited, "served": served})
        )

    def lost(self, worker: int, *, version: int, time: float) -> None:
        """Note that a worker was lost."""
        self._pending.append(to_line({"lost": worker, "version": version, "time": time}))
        self.flush()

    def barrier(self, *, version: int, time: float) -> None:
        """Note that a barrier is over."""
        self._pending.append(to_line({"barrier": version, "time": time}))
        self.flush()

    def resumed(self, *, version: int, time: float) -> None:
        """Note that the run was resumed and all workers started again."""
        # A run may go on on another machine, on which its bits depend from here on.
        machine_now = {key: self.about[key] for key in BITS}
        self._pending.append(to_line({"resumed": machine_now, "version": version, "time": time}))
        self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        # Before `begin`, or after a failed write, a line would stand in a file that lacks those before it.
        if self.lines is None or self._failed:
            self._pending.clear()
            return
        try:
            # Opened anew each time: between two writes, of 256 messages, an open file would gain nothing.
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(self._pending)
        except OSError as error:
            self._failed = True
            log.warning("%s could not be written (%s); the run goes on, unrecorded", self.path, error.strerror or error)
        # Counted also if they could not be written: who resumes then finds fewer lines than the checkpoint knows, and
        # does not record on.
        self.lines += len(self._pending)
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        """Flush, and return how many lines the file has."""
        self.flush()
        return {"lines": self.lines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the file back to the lines of a saved state, and continue there."""
        self.lines = truncate_lines(self.path, state["lines"])
        self._failed = self.lines < state["lines"]
        if self._failed:
            log.warning("%s is incomplete; the run goes on, unrecorded", self.path)
