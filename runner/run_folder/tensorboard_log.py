"""Logs a run to TensorBoard: event files in the run folder under `tensorboard/`, written by tensorboardX.

`tensorboard --logdir outputs` shows the runs below a folder. tensorboardX, because PyTorch's own writer needs the
whole of TensorBoard, which a machine that only trains can do without.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from runner.run_folder import columns
from runner.run_folder.contents import TENSORBOARD
from runner.run_folder.extras import imported


class TensorBoardLog:
    """The event file of a run.

    The steps are training samples: of methods that make unlike numbers of updates in an epoch the curves so lie over
    each other.

    Args:
        folder: the run folder.
        config: the composed configuration, which is logged as text.

    Raises:
        InputError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._library = imported("tensorboardX", "tensorboard")
        self._folder, self._config = folder / TENSORBOARD, config
        self._writer: Any = None

    def take_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin the event file with the rows that count, and remove the files that the run has written so far.

        So the run is one curve with each row once: a file that a kill ended may have rows that the run makes again.
        """
        for path in self._folder.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = self._library.SummaryWriter(logdir=str(self._folder))
        self._writer.add_text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(self._config)))}```")
        for row in rows:
            self._add(row)
        self._writer.flush()

    def log(self, row: Mapping[str, Any]) -> None:
        """Log an evaluation; TensorBoard shows it on its next look."""
        self._add(row)
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the summary as text, and close the file."""
        lines = [f"| {key} | {value} |" for key, value in summary.items() if not isinstance(value, list | dict)]
        self._writer.add_text("summary", "\n".join(["| key | value |", "| --- | --- |", *lines]))
        self._writer.close()

    def _add(self, row: Mapping[str, Any]) -> None:
        for key, value in numbers(row).items():
            self._writer.add_scalar(key, value, global_step=row[columns.SAMPLES])


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what of a row or summary can be drawn: its numbers, without truth values."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
