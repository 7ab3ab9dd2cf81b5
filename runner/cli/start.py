"""Starts a run from a checked configuration: in a new folder, in that of the run that it continues, or in none.

Nothing here imports torch before the run really begins.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runner.cli import relaunch
from runner.config import exit_codes, launcher, schema, startup
from runner.config.collector import uncollected
from runner.config.errors import InputError
from runner.config.forkserver import forkserver_context
from runner.config.paths import quoted
from runner.config.schema import without_hydra
from runner.run_folder import folders

KEY = "hydra.run.dir"
"""The key that names a new run's folder."""


class NewRun:
    """Hydra's task function of a run that begins: Hydra makes the folder, then calls this.

    Args:
        folder: the folder of the run.
        who: names this process in a line about an unexpected error; empty if it is the only one.

    Attributes:
        code: the run's exit code; None until it has one.

    Raises:
        InputError: the folder cannot be made, or holds a run.
    """

    def __init__(self, folder: Path, who: str) -> None:
        folders.check_run_folder(folder, KEY)
        self.folder, self.who = folder, who
        # Noted before Hydra makes folders: afterwards nobody knows which of the parents were there.
        self.existing = folders.nearest_existing(folder)
        self.code: int | None = None

    def __call__(self, job: DictConfig) -> None:
        """Run, and turn an exception into the exit code; remove the folder if it holds nothing worth keeping."""
        own = HydraConfig.get()
        # As Hydra has it, absolute: `self.folder` may be relative.
        folder = Path(own.runtime.output_dir)
        _name_options(job, own.runtime.choices)
        relaunch.remember(folder)
        with exit_codes.guard(folder, self.who) as ended:
            # Inside the guard: an import may fail too, as of a module of the user's with the name of one of ours.
            _begin_fork_server(job)
            dispatch = _import_dispatch()
            ended.code = dispatch(job, folder)
        # Kept here, since Hydra returns nothing.
        self.code = ended.code
        # Nothing of these is worth a folder; any other failure keeps its log.
        if ended.code == exit_codes.WRONG_INPUT or ended.code > exit_codes.SIGNALLED or only_answers(job):
            folders.discard(folder, self.existing)


def begin(cfg: DictConfig, loader: ConfigLoader, run: NewRun) -> int:
    """Make the folder of a run that begins, and run: as `hydra.main` does, which would compose the command line anew.

    Args:
        cfg: the checked configuration, with Hydra's part.
        loader: composed it.
        run: called when Hydra has written its files.

    Raises:
        InputError: another process begins or writes a run in the same folder.
    """
    # As if typed: where the name has the time or random letters, it is settled now.
    chosen = [f"{KEY}={quoted(str(run.folder))}", *([] if cfg.hydra.mode else ["hydra.mode=RUN"])]
    with read_write(cfg), read_write(cfg.hydra):
        cfg.hydra.run.dir, cfg.hydra.mode = str(run.folder), RunMode.RUN
        cfg.hydra.overrides.hydra = [*cfg.hydra.overrides.hydra, *chosen]
    try:
        # Before anything is written into the folder, Hydra's own files too.
        with folders.new_run_folder(run.folder, KEY):
            configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
            callbacks = Callbacks(cfg)
            callbacks.on_run_start(config=cfg, config_name="config")
            context = HydraContext(config_loader=loader, callbacks=callbacks)
            ended = run_job(run, cfg, job_dir_key=KEY, job_subdir_key=None, hydra_context=context)
            callbacks.on_run_end(config=cfg, config_name="config", job_return=ended)
            # Raises what was raised in the job, as where a full disk does not take Hydra's files.
            _ = ended.return_value
    except HydraException as exc:
        raise InputError(str(exc)) from exc
    return 0 if run.code is None else run.code


def join(cfg: DictConfig, job: DictConfig, folder: Path | None, choices: Mapping[str, Any], who: str) -> int:
    """Run without a new folder: continue a run in its own, or be a rank above 0, which has none.

    Hydra's task runner would make a folder, so its part of the work is done here: logging, and the names of options.

    Raises:
        InputError: the folder cannot be written, or another process writes the run.
    """
    if folder is not None:
        folders.check_writable(folder, "run.resume")
    # Before the log is opened: nothing is written into the folder of a run that another process writes.
    with nullcontext() if folder is None else folders.run_lock(folder):
        return _joined(cfg, job, folder, choices, who)


def _joined(cfg: DictConfig, job: DictConfig, folder: Path | None, choices: Mapping[str, Any], who: str) -> int:
    # Unresolved: the name of the log file is an interpolation of the folder that Hydra would have made.
    logging_config = OmegaConf.to_container(cfg.hydra.job_logging, resolve=False)
    assert isinstance(logging_config, dict)
    if folder is None:
        # Rank 0 alone writes the log.
        del logging_config["handlers"]["file"]
        logging_config["root"]["handlers"].remove("file")
    else:
        logging_config["handlers"]["file"]["filename"] = str(folder / "dcrun.log")
    configure_log(OmegaConf.create(logging_config), cfg.hydra.verbose)
    _name_options(job, choices)
    with exit_codes.guard(folder, who) as ended:
        _begin_fork_server(job)
        dispatch = _import_dispatch()
        ended.code = dispatch(job, folder)
    if folder is not None and ended.code > exit_codes.SIGNALLED:
        # Stopped before it went on: its summary may still say what a killed run was at.
        folders.mark_interrupted(folder, "a signal stopped the run before it went on")
    return ended.code


def _name_options(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Write the options chosen of each group to the section `names`, for messages and the summary."""
    with open_dict(cfg):
        # A plain section of the run's own: spawned ranks get no Hydra's part.
        cfg["names"] = {**schema.option_names(cfg, choices), "experiment": choices.get("experiment")}


def _begin_fork_server(job: DictConfig) -> None:
    """Start what a run's processes are forked from, if it is sure to have some.

    It imports PyTorch, which this process does at the same time: else the run would wait for one after the other.
    """
    if only_answers(job) or job.run.timing_only or launcher.world_size() > 1:
        return
    # What `auto` comes to is known when the network is built; in most runs it is one.
    asked = job.run.compute_processes
    if job.cluster.kind == "processes" or (isinstance(asked, int) and asked > 1):
        forkserver_context("runner.train.dispatch")


def _import_dispatch() -> Callable[[DictConfig, Path | None], int]:
    """Return the function that runs the training. It is imported late because it imports torch, for some seconds."""
    startup.current().enter(startup.IMPORTS)
    with uncollected():
        from runner.train.dispatch import dispatch

    return dispatch


def told_by_rank_0(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a rank that waits for rank 0's: it does not see the folder that it is in."""
    job = without_hydra(cfg)
    job.cluster.kind = "processes"
    return job


def only_answers(job: DictConfig) -> bool:
    """Return whether a run prints or draws something instead of training."""
    return bool(job.run.estimate or job.run.advise or job.run.plot_schedule or job.run.evaluate_only)
