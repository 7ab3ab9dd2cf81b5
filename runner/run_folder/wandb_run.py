"""Logs a run to Weights & Biases: offline by default, silently, and without ever making a run fail half-way.

Offline runs are in the run folder under `wandb/`. `wandb leet <folder>` shows them in the terminal, and `wandb sync
<folder>` uploads them.
"""

import importlib.util
import os
import secrets
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from runner.config.errors import InputError
from runner.run_folder.logger_thread import LoggerThread

_ID_CHARACTERS, _ID_LENGTH = string.ascii_lowercase + string.digits, 8


class WandbRun:
    """A wandb run. An offline one begins beside the training that follows, as wandb takes a second or two to begin.

    One thread makes all calls of wandb, in the order in which they were asked for; `finish` waits for the last one.

    Args:
        folder: the run folder; wandb's files go to `wandb/` in it.
        config: the composed configuration, logged as the run's.
        mode: 'offline' or 'online'. It is set explicitly, so that no login or environment variable of the user takes a
            run online.
        project: wandb's project.
        group: the same for all jobs of a sweep; None for a single run.
        run_id: wandb's id of the run that is resumed; None begins a new one.

    Raises:
        InputError: if wandb is not installed or cannot begin online (without a login, no network).
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        mode: str,
        project: str,
        group: str | None,
        run_id: str | None = None,
    ) -> None:
        # As wandb makes them. Ours, since a checkpoint may ask for it before wandb has begun.
        self.id = run_id or "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
        self._run: Any = None
        self._folder, self._mode, self._resumed = folder, mode, run_id is not None
        self._thread = LoggerThread("wandb")

        def start() -> None:
            self._run = begin(
                folder,
                mode=mode,
                project=project,
                group=group,
                name=folder.name,
                id=self.id,
                # "allow", not "must": the files of an offline run may never have reached the server that would be
                # asked.
                resume=None if run_id is None else "allow",
                config=dict(config),
            )

        if mode == "offline":
            # What can be wrong with it is known before: nothing but that it is not installed.
            _prepare(mode)
            self._thread.call(start)
        else:
            # Whether there is a login or a network must be known before hours of training.
            start()
        # Draw charts over effective passes, not over the number of the evaluation.
        self._thread.call(lambda: self._run.define_metric("epoch"))
        self._thread.call(lambda: self._run.define_metric("*", step_metric="epoch"))

    def take_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log what a run that goes on has logged, and remove the offline runs that it was logged to.

        So the run is one in the end, with each row once: a segment that a kill ended has rows that the run makes
        again, and what is uploaded last would replace what was uploaded before. wandb keeps an online run as one.
        """
        if self._mode != "offline" or not self._resumed:
            return
        for number, row in enumerate(rows, start=1):
            self.log(row, step=number)
        self._thread.call(self._remove_segments)

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Log an evaluation; `step` is its number. wandb ignores numbers that it has already, as after a resume."""
        own = dict(row)
        self._thread.call(lambda: self._run.log(own, step=step))

    def finish(self, summary: Mapping[str, Any], failed: bool) -> None:
        """Write the summary and end the run; `failed` marks it as failed in wandb."""
        own = dict(summary)
        self._thread.call(lambda: self._run.summary.update(own))
        # An exit code, since wandb has no other word for a run that failed.
        self._thread.call(lambda: self._run.finish(exit_code=int(failed)))
        self._thread.finish()

    def _remove_segments(self) -> None:
        own = Path(self._run.dir).parent.resolve()
        # Of two segments that began in the same second, the second one's name ends with a number.
        for segment in self._folder.glob(f"wandb/offline-run-*-{self.id}*"):
            if segment.resolve() != own:
                shutil.rmtree(segment, ignore_errors=True)


def group_of(config: DictConfig, sweep: Path) -> str:
    """Return the name of the group of a sweep's runs.

    It is what the user says, else the experiment with its scale, else the name of the folder.

    Args:
        config: the configuration that the command line composes to, with Hydra's part.
        sweep: the sweep's folder.
    """
    if config.logger.group is not None:
        return str(config.logger.group)
    experiment = config.hydra.runtime.choices.get("experiment")
    return sweep.name if experiment is None else f"{experiment.replace('/', '-')}-{config.scale}"


def begin(folder: Path, *, mode: str, **arguments: Any) -> Any:
    """Begin a run of wandb, silently.

    Args:
        folder: wandb's files go to `wandb/` in it.
        mode: 'offline' or 'online', whatever login or environment variable the user has.
        arguments: arguments of `wandb.init`.

    Raises:
        InputError: if wandb is not installed or cannot begin (online without a login, no network).
    """
    _prepare(mode)
    try:
        import wandb

        settings = wandb.Settings(silent=True, console="off", quiet=True)
        return wandb.init(dir=folder, mode=mode, settings=settings, **arguments)  # type: ignore[arg-type]
    # Before the general case: what helps is to install it, not to change the mode.
    except ImportError as error:
        raise InputError(f"logger=wandb: cannot be imported ({error}); allowed: none, or pip install wandb") from error
    except Exception as error:  # as below: wandb's errors have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        allowed = "offline, online, disabled"
        raise InputError(f"logger.mode={mode}: wandb cannot begin ({reason}); allowed: {allowed}") from error


def _prepare(mode: str) -> None:
    """Refuse what cannot begin whatever the arguments are, and set wandb's environment."""
    if mode not in ("offline", "online"):
        raise InputError(f"logger.mode={mode}: is not a mode of wandb; allowed: offline, online, disabled")
    os.environ["WANDB_MODE"] = mode  # wandb's own processes read the mode here
    # Its processes would print into our lines and into the bar.
    os.environ["WANDB_SILENT"] = "true"
    # Looked for, not imported, which takes half a second.
    if sys.modules.get("wandb") is None and importlib.util.find_spec("wandb") is None:
        raise InputError("logger=wandb: cannot be imported (it is not installed); allowed: none, or pip install wandb")
