"""Logs a run to MLflow: to the tracking server or store that the configuration or MLflow's own settings name."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.config.errors import InputError
from runner.run_folder import columns
from runner.run_folder.extras import imported
from runner.run_folder.summary_keys import COMPLETED, INTERRUPTED, PRUNED, STATUS
from runner.run_folder.tensorboard_log import numbers

_AT_A_TIME = 100  # parameters in one call; MLflow takes no more
_LONGEST = 500  # characters of a parameter's value
_STATES = {COMPLETED: "FINISHED", INTERRUPTED: "KILLED", PRUNED: "KILLED"}


class MlflowRun:
    """A run of MLflow. The steps are training samples, as those of TensorBoard.

    Args:
        folder: the run folder, which names the run.
        config: the composed configuration, logged as the run's parameters.
        tracking_uri: a server or a database; None leaves it to `MLFLOW_TRACKING_URI` and to MLflow.
        experiment: MLflow's experiment; it is made if there is none of this name.
        group: the same for all jobs of a sweep, a tag of the run; None for a single run.
        run_id: MLflow's id of the run that is resumed; None begins a new one.

    Raises:
        InputError: MLflow is not installed, or cannot be reached.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        tracking_uri: str | None,
        experiment: str,
        group: str | None,
        run_id: str | None = None,
    ) -> None:
        mlflow = imported("mlflow", "mlflow")
        self._entities = imported("mlflow.entities", "mlflow")
        try:
            self._client = mlflow.MlflowClient(tracking_uri=tracking_uri)
            # Before hours of training it must be known that the store can be reached.
            self.id = run_id or self._new_run(experiment, folder, config, group)
            if run_id is not None:
                self._client.update_run(run_id, status="RUNNING")
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            allowed = "null, or a server or database that can be reached, as sqlite:///outputs/mlflow.db"
            raise InputError.of(
                "logger.tracking_uri", tracking_uri, f"MLflow cannot begin ({reason})", allowed
            ) from error
        self._last: int | None = None

    def take_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log those rows of a run that goes on which MLflow has not got.

        MLflow keeps both of two values with one step. What a killed run had logged after its checkpoint is therefore
        not logged again when the run makes it again.
        """
        steps = [metric.step for metric in self._client.get_metric_history(self.id, columns.EPOCH)]
        self._last = max(steps, default=None)
        for row in rows:
            self.log(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Log an evaluation, unless MLflow has it."""
        step = row[columns.SAMPLES]
        if self._last is not None and step <= self._last:
            return
        self._log(row, step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the numbers of the summary that no row has, and end the run."""
        self._log({key: value for key, value in summary.items() if key not in columns.STANDARD}, 0)
        self._client.set_terminated(self.id, status=_STATES.get(summary[STATUS], "FAILED"))

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        now = round(1000 * time.time())
        metrics = [self._entities.Metric(key, value, now, step) for key, value in numbers(values).items()]
        self._client.log_batch(self.id, metrics=metrics)

    def _new_run(self, experiment: str, folder: Path, config: Mapping[str, Any], group: str | None) -> str:
        tags = {"folder": str(folder), **({} if group is None else {"group": group})}
        run_id = self._client.create_run(self._experiment(experiment), run_name=folder.name, tags=tags).info.run_id
        parameters = [self._entities.Param(key, str(value)[:_LONGEST]) for key, value in flat(config).items()]
        for begin in range(0, len(parameters), _AT_A_TIME):
            self._client.log_batch(run_id, params=parameters[begin : begin + _AT_A_TIME])
        return run_id

    def _experiment(self, name: str) -> str:
        if (found := self._client.get_experiment_by_name(name)) is not None:
            return found.experiment_id
        try:
            return self._client.create_experiment(name)
        except Exception:
            # Jobs of a sweep begin together, and another one may have made it since.
            if (found := self._client.get_experiment_by_name(name)) is None:
                raise
            return found.experiment_id


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a configuration under their keys with dots."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves
