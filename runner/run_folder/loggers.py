"""The loggers that a run's rows go to besides its folder: any number of them, each as its part of `logger` says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from runner.run_folder.csv_log import CsvLog
from runner.run_folder.logger_thread import LoggerThread
from runner.run_folder.mlflow_run import MlflowRun
from runner.run_folder.tensorboard_log import TensorBoardLog
from runner.run_folder.wandb_run import WandbRun

WANDB_ID, MLFLOW_ID = "wandb_id", "mlflow_id"
"""What a checkpoint keeps, so that a run that goes on is one run there."""


def asked(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration asks for any logger."""
    own = config.get("logger") or {}
    wandb = own.get("kind") == "wandb" and own["mode"] != "disabled"
    return wandb or any(own.get(key) for key in ("csv", "tensorboard", "mlflow"))


class RowLogger(Protocol):
    """A logger whose calls may raise anything, and take their time: a thread of its own makes them."""

    def take_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin with the rows of the run so far; none of a new one."""
        ...

    def log(self, row: Mapping[str, Any]) -> None:
        """Log an evaluation."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """End the run."""
        ...


class Loggers:
    """All loggers of a run; none before `begin`."""

    def __init__(self) -> None:
        self._others: list[tuple[RowLogger, LoggerThread]] = []
        self._wandb: WandbRun | None = None
        self._ids: dict[str, str | None] = {WANDB_ID: None}

    def begin(self, folder: Path, config: Mapping[str, Any], resumed: Mapping[str, Any]) -> None:
        """Begin what the configuration asks for.

        Args:
            folder: the run folder.
            config: the composed configuration as plain values. Its section `logger` may lack keys, as that of a run
                from before a logger existed does.
            resumed: what a checkpoint kept of `ids`; empty if the run is new.

        Raises:
            InputError: a logger's library is not installed, or it cannot begin. Nothing in the folder has changed.
        """
        own = config.get("logger") or {}
        self._ids |= {key: resumed[key] for key in (WANDB_ID, MLFLOW_ID) if resumed.get(key) is not None}
        if own.get("csv"):
            self._add("csv", CsvLog(folder))
        if own.get("tensorboard"):
            self._add("tensorboard", TensorBoardLog(folder, config))
        # Those that can make a run elsewhere come last: none is left there without an end if another one refuses.
        if own.get("kind") == "wandb" and own["mode"] != "disabled":
            self._wandb = WandbRun(
                folder,
                config,
                mode=own["mode"],
                project=own["project"],
                group=own["group"],
                run_id=self._ids[WANDB_ID],
            )
            self._ids[WANDB_ID] = self._wandb.id
        if own.get("mlflow"):
            run = MlflowRun(
                folder,
                config,
                tracking_uri=own["tracking_uri"],
                experiment=own["project"],
                group=own["group"],
                run_id=self._ids.get(MLFLOW_ID),
            )
            self._ids[MLFLOW_ID] = run.id
            self._add("mlflow", run)

    def ids(self) -> dict[str, str | None]:
        """Return plain values, which a checkpoint keeps for `begin(resumed=...)`."""
        return dict(self._ids)

    def take_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Let each logger begin with the rows that count; later rows that it has are removed or ignored."""
        own = [dict(row) for row in rows]
        for logger, thread in self._others:
            thread.call(lambda logger=logger: logger.take_over(own))
        if self._wandb is not None:
            self._wandb.take_over(own)

    def log(self, row: Mapping[str, Any], number: int) -> None:
        """Log an evaluation; `number` counts them from 1."""
        own = dict(row)
        for logger, thread in self._others:
            thread.call(lambda logger=logger: logger.log(own))
        if self._wandb is not None:
            self._wandb.log(own, step=number)

    def finish(self, summary: Mapping[str, Any], failed: bool) -> None:
        """End all loggers and wait for them; `failed` marks the run as failed where there is a mark for it."""
        own = dict(summary)
        for logger, thread in self._others:
            thread.call(lambda logger=logger: logger.finish(own))
        if self._wandb is not None:
            self._wandb.finish(own, failed)
        for _, thread in self._others:
            thread.finish()

    def _add(self, name: str, logger: RowLogger) -> None:
        self._others.append((logger, LoggerThread(name)))
