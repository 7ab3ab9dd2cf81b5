"""Writes a run folder: metrics as they come, the summary at the start and the end. It feeds display and loggers too.

Only the process that owns the run folder has a writer (the simulation, or rank 0). It does not import torch, and the
library of a logger only if the configuration asks for it.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from runner.config import startup
from runner.run_folder import columns
from runner.run_folder.console import show_result
from runner.run_folder.contents import METRICS, SUMMARY
from runner.run_folder.jsonl import (
    append,
    overwrite,
    read_lines,
    to_jsonable,
    to_line,
    truncate_lines,
    write_document,
)
from runner.run_folder.loggers import Loggers, asked
from runner.run_folder.progress import Live, Progress
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    BEST_VALIDATION_LOSS,
    BYTES_SENT,
    COMPLETED,
    DIVERGED,
    FAILED,
    FINAL_TEST_ERROR,
    FINAL_VALIDATION_ERROR,
    INTERRUPTED,
    PRUNED,
    RUNNING,
    STATUS,
    TEST_ERROR_AT_BEST,
    TIMING_ONLY,
)

log = logging.getLogger("dcrun")

STATUSES = (RUNNING, COMPLETED, DIVERGED, INTERRUPTED, PRUNED, FAILED)
# Every summary has all of these keys, with null if a run has no such value, so reports need not ask for a key. `clock`
# is 'virtual' or 'measured', and says what `seconds` are.
SUMMARY_KEYS = (
    STATUS,
    "algorithm",
    "model",
    "dataset",
    "cluster",
    "workers",
    "seed",
    "epochs",
    "samples",
    "updates",
    "parameters",
    BEST_TEST_ERROR,
    FINAL_TEST_ERROR,
    "final_train_loss",
    "seconds",
    "clock",
    "wall_seconds",
    "start_seconds",
    "samples_per_second",
    BYTES_SENT,
    "peak_memory_bytes",
    "workers_lost",
    "weights_sha256",
    "buffers_sha256",
    "dataset_fingerprint",
    "threads",
    "device",
    "git_commit",
    "versions",
)


class RunWriter:
    """Writes what a run leaves behind; a context manager that ends a run as failed when an exception passes through.

        with RunWriter(folder, cfg, epochs=3, virtual=True) as writer:
            writer.start({"workers": 4, ...})
            ...
            writer.finish("completed", samples=..., ...)

    Args:
        folder: the run folder; it exists.
        cfg: the composed configuration as plain values; its section `logger` decides where rows go besides the folder.
        epochs: effective passes that the run will make.
        virtual: whether `seconds` are those of a simulated clock.
        console: where to print; standard output by default.
    """

    def __init__(
        self, folder: Path, cfg: Mapping[str, Any], *, epochs: float, virtual: bool, console: Console | None = None
    ) -> None:
        self.folder = folder
        self.cfg = cfg
        self.display = Progress(epochs=epochs, virtual=virtual, console=console)
        self.summary: dict[str, Any] = dict.fromkeys(SUMMARY_KEYS)
        self.summary["clock"] = "virtual" if virtual else "measured"
        self.rows: list[dict[str, Any]] = []
        self.finished = False
        self._started = False
        self._begun = time.perf_counter()
        self._wall_before = 0.0
        # Kept: of the command that this run is, whatever this process begins later.
        self.startup = startup.current()
        self._start_seconds = 0.0
        self._logging = False
        self._unwritten = ""
        self._loggers = Loggers()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Before `start` nothing was written, so there is nothing to end.
        if self.finished or not self._started:
            return
        # A second Ctrl-C or an exit leaves what was written, and an earlier checkpoint can still be resumed: such a run
        # counts as interrupted.
        # Whatever stopped it, the summary must not go on saying that the run is running.
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else FAILED
        lines = str(error).splitlines()
        reason = "the run ended without a result" if error is None else ": ".join([type(error).__name__, *lines[:1]])
        self.finish(status, error=reason)

    def start(self, summary: Mapping[str, Any], resumed: Mapping[str, Any] | None = None) -> None:
        """Begin: write `running` to `summary.json`, and empty `metrics.jsonl` or cut it back.

        Args:
            summary: what is known at the beginning (`algorithm`, `workers`, the machine's facts, ...).
            resumed: the `state_dict` in the checkpoint from which the run continues.

        Raises:
            ValueError: if a logger is asked for and cannot begin.
            OSError: if the run folder cannot be written.
        """
        if resumed is not None:
            # The seconds of all processes that worked at the run add up.
            self._wall_before = resumed["wall_seconds"]
            # Checkpoints from before this number was kept lack it.
            self._start_seconds = resumed.get("start_seconds", 0.0)
        # The loggers come first because they can refuse, and then nothing in the folder has changed. The rest of their
        # beginning goes on beside the first epoch, where that may be.
        if asked(self.cfg):
            self.startup.enter(startup.LOGGER)
        self._loggers.begin(self.folder, self.cfg, resumed or {})
        self._started = True
        self._start_seconds += self.startup.end()
        self._begun = time.perf_counter()
        path = self.folder / METRICS
        truncate_lines(path, 0 if resumed is None else resumed["rows"])
        # After the cut, so that curve, best error and the display begin with the rows that count.
        self.rows = read_lines(path)
        # With the rows up to the checkpoint: what came after it is made again.
        self._loggers.take_over(self.rows)
        self.summary |= to_jsonable({**summary, STATUS: RUNNING})
        write_document(self.folder / SUMMARY, self.summary)
        # So that a run without an evaluation has an empty file, and not none, for whoever reads it.
        path.touch()
        self._logging = True
        self.display.start(self.rows[-1][columns.EPOCH] if self.rows else 0.0)

    def progress(
        self, *, epoch: float, samples: int, train_loss: Live | None = None, staleness: Live | None = None
    ) -> None:
        """Show the progress after an update; see `Progress.update`: 0-d tensors are read only when they are shown."""
        self.display.update(epoch=epoch, samples=samples, train_loss=train_loss, staleness=staleness)

    def log(self, row: Mapping[str, Any], samples_per_second: float | None = None) -> None:
        """Record an evaluation: a line in `metrics.jsonl` that is on the disk on return, loggers, the display.

        Args:
            row: the standard columns and those that the algorithm adds; NaN and infinities are written as null.
            samples_per_second: shown on the display only.
        """
        if not self._logging:
            raise RuntimeError("a run that has not started, or has finished, cannot log")
        plain_row: dict[str, Any] = to_jsonable(row)
        # The row first: loggers and the display may fail or be slow, and are not what a resume relies on.
        self._unwritten += to_line(plain_row)
        self.write_rows()
        self.rows.append(plain_row)
        self._loggers.log(plain_row, number=len(self.rows))
        if self.summary.get(TIMING_ONLY):
            # Of a run without losses and errors a line has what there is.
            plain_row = {key: value for key, value in plain_row.items() if value is not None}
        self.display.row(plain_row, samples_per_second)

    def write_rows(self) -> bool:
        """Write the rows that wait for room on the disk; return whether `metrics.jsonl` has all rows now.

        A checkpoint counts the rows, so they must be on the disk before it.
        """
        path = self.folder / METRICS
        try:
            if self._unwritten:
                append(path, self._unwritten)
            self._unwritten = ""
        except OSError as error:
            reason = error.strerror or error
            log.warning("%s could not be written (%s); the run goes on, and tries again", path, reason)
        return not self._unwritten

    def wall_seconds(self) -> float:
        """Return the seconds since the start was over, with evaluations and the time before a resume."""
        return self._wall_before + time.perf_counter() - self._begun

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint keeps for `start(resumed=...)`."""
        return {
            "rows": len(self.rows),
            "wall_seconds": self.wall_seconds(),
            "start_seconds": self._start_seconds,
            **self._loggers.ids(),
        }

    def finish(self, status: str, **summary: Any) -> None:
        """End the run: write `summary.json`, end the loggers, and print the result. A second call does nothing.

        Args:
            status: 'completed', 'diverged', 'interrupted', 'pruned' or 'failed'.
            summary: further values of `summary.json`. By default `epochs`, `samples`, `updates`, `seconds`, the test
                errors and `final_train_loss` come from the rows, `wall_seconds` and `start_seconds` from this object.

        Raises:
            ValueError: the status is not one of these.
        """
        if status not in STATUSES[1:]:
            raise ValueError(f"status={status}: is not an end of a run; allowed: {', '.join(STATUSES[1:])}")
        if self.finished:
            return
        # At once: if what follows fails, `__exit__` must not end the run a second time.
        self.finished = True
        # First of all that prints: the result would be written into the bar.
        self.display.stop()
        self._logging = False
        self.write_rows()
        # What the caller knows takes precedence over what follows from the rows.
        self.summary |= to_jsonable(
            {
                **self._from_rows(),
                "wall_seconds": self.wall_seconds(),
                "start_seconds": self._start_seconds,
                **summary,
                STATUS: status,
            }
        )
        # wandb's processes are told that the run is over even if the disk is full.
        try:
            self._write_summary()
        finally:
            self._loggers.finish(self.summary, failed=status in (DIVERGED, FAILED))
        lr = (self.cfg.get("schedule") or {}).get("lr")
        # From the rows, so those before a resume are part of the curve.
        curve = [row.get(columns.TEST_ERROR) for row in self.rows]
        show_result(self.display.console, self.summary, self.folder, lr=lr, curve=curve)

    def _write_summary(self) -> None:
        """Write `summary.json`, on a full disk in its own place: it must not go on saying that the run is running."""
        path = self.folder / SUMMARY
        try:
            write_document(path, self.summary)
        except OSError:
            # On one line, which is shorter than the indented form that it replaces.
            overwrite(path, to_line(self.summary).encode())

    def _from_rows(self) -> dict[str, Any]:
        if not self.rows:
            return {}
        last = self.rows[-1]
        # A row may have none: a data set without test samples, or a loss that is not finite.
        errors = [row[columns.TEST_ERROR] for row in self.rows if row.get(columns.TEST_ERROR) is not None]
        return {
            **{key: last.get(key) for key in (columns.SAMPLES, columns.UPDATES, columns.SECONDS)},
            "epochs": last.get(columns.EPOCH),
            BEST_TEST_ERROR: min(errors, default=None),
            FINAL_TEST_ERROR: last.get(columns.TEST_ERROR),
            "final_train_loss": last.get(columns.TRAIN_LOSS),
            **_of_validation(self.rows),
        }


def _of_validation(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the rows say of the validation split; nothing if there is none."""
    scored = [row for row in rows if columns.VALIDATION_LOSS in row]
    if not scored:
        return {}
    losses = [row[columns.VALIDATION_LOSS] for row in scored if row[columns.VALIDATION_LOSS] is not None]
    # A model that guesses no classes has no errors.
    erring = [row for row in scored if row.get(columns.VALIDATION_ERROR) is not None]
    best = min(erring, key=lambda row: row[columns.VALIDATION_ERROR], default={})
    return {
        BEST_VALIDATION_ERROR: best.get(columns.VALIDATION_ERROR),
        FINAL_VALIDATION_ERROR: scored[-1].get(columns.VALIDATION_ERROR),
        BEST_VALIDATION_LOSS: min(losses, default=None),
        TEST_ERROR_AT_BEST: best.get(columns.TEST_ERROR),
    }
