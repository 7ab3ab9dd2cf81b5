"""The command `dcrun`: from a command line to a run and an exit code. Its help is `conf/hydra/help/dcrun.yaml`.

Exit codes: 0 completed or diverged, 1 anything unexpected (also a sweep with a failed job), 2 wrong input, 3 a dead or
stuck peer, 130 and 143 stopped by Ctrl-C or SIGTERM.

A command line is composed and checked before Hydra acts on it, so that a mistake costs one line and leaves no folder.
Nothing here imports torch: `runner.train.dispatch`, which runs the training, is imported only when a run really begins.
"""

import argparse
import functools
import logging
import os
import secrets
import string
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra.version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.cli.compose import CONF, VERSION_BASE, composer, find_data, swept_along
from runner.config import exit_codes, override_errors, schema
from runner.config.errors import InputError
from runner.config.process_settings import set_process
from runner.config.schema import without_hydra
from runner.report import wandb_table
from runner.run_folder import folders, resume
from runner.sweeps import experiment_sweeper, optuna_sweeper, search_space, submitit_launcher, subprocess_launcher
from runner.sweeps.job import print_table, quoted

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says.

    Args:
        arguments: the command line without the program's name; by default this process's.

    Returns:
        The exit code.
    """
    # Before anything can import torch, which reads these settings when it is loaded.
    set_process()
    try:
        command = _command(list(sys.argv[1:] if arguments is None else arguments))
        return command()
    except InputError as exc:
        # Under torchrun each rank finds the same mistake; one line is enough.
        if _rank() == 0:
            exit_codes.report(exc)
        return 2
    except KeyboardInterrupt:
        return 130


def _command(arguments: list[str]) -> Callable[[], int]:
    """Compose and check a command line, and return what it asks for, which returns the exit code.

    Raises:
        InputError: something on the line is wrong.
    """
    args = _parse(arguments)
    # Before anything is composed: the recorded run's overrides are part of a replay's command line.
    args.overrides += resume.recorded_overrides(args.overrides)
    # config.yaml says the same, and Hydra does not take null for a group on the command line.
    args.overrides = [override for override in args.overrides if override != "experiment=null"]
    args.overrides += search_space.implied(args.overrides)
    # Before the first composition: Hydra looks the schema, the launchers and the sweepers up in its store.
    schema.register()
    subprocess_launcher.register()
    experiment_sweeper.register()
    optuna_sweeper.register()
    submitit_launcher.register()
    subprocess_launcher.register_old_names()
    # The cache belongs to a configuration: all who read the folder of one run get the same random name.
    OmegaConf.register_new_resolver("random_hex", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    shows = args.hydra_help or args.cfg or args.info
    if args.shell_completion or (shows and not args.overrides):
        return functools.partial(_hydra, args)
    # The first composition of all jobs, in memory; `_hydra` composes anew. Why twice is said in `runner.cli.compose`.
    with composer() as compose:
        jobs = compose.jobs(args.overrides, multirun=bool(args.multirun))
        cfg = jobs[0]
        if args.help:
            return functools.partial(_show, _help(cfg, compose.loader))
        parsed = override_errors.parse(args.overrides, compose.loader)
    sweeps = args.multirun or str(cfg.hydra.mode).endswith("MULTIRUN")
    if sweeps:
        args.overrides = swept_along(args.overrides)
    if shows:
        return functools.partial(_hydra, args)
    # A finished run only shows its result, and a picture of the learning rate needs no data.
    if not (cfg.run.resume or cfg.run.plot_schedule):
        find_data(jobs)
    if sweeps:
        return functools.partial(_sweep, args, jobs)
    # A run that goes on has its folder, so Hydra, which would make another one, is left out.
    if isinstance(cfg.run.resume, str):
        # The stored configuration is the run's, not what the line composes to: only a few keys of that count.
        folder = resume.run_folder(cfg.run.resume)
        stored = resume.stored_config(folder, cfg, parsed)
        own = folder if _rank() == 0 else None
        return functools.partial(_join, cfg, stored, own, resume.stored_choices(folder))
    if cfg.run.resume:
        raise InputError.of(
            "run.resume", cfg.run.resume, "does not name a run", "a run folder, or null; true in a sweep"
        )
    if _world_size() > 1 and cfg.cluster.kind != "processes":
        raise InputError.of("cluster.kind", cfg.cluster.kind, "torchrun started several processes", "cluster=processes")
    # Only rank 0 goes through Hydra, which would make a folder on every rank.
    if _rank() > 0:
        return functools.partial(_join, cfg, without_hydra(cfg), None, cfg.hydra.runtime.choices)
    return functools.partial(_hydra, args, NewRun(Path(str(cfg.hydra.run.dir))))


def _help(cfg: DictConfig, loader: ConfigLoader) -> str:
    """Fill the groups' options into the help text.

    Hydra's own help also searches the options of its own groups, which takes 0.3 seconds.
    """
    lines = []
    for group in (*schema.GROUPS, "experiment"):
        if options := override_errors.group_options(group, loader):
            chosen = cfg.hydra.runtime.choices.get(group)
            lines.append(f"{group}: {', '.join(options)}" + (f"  (here: {chosen})" if chosen else ""))
    return string.Template(cfg.hydra.help.template).substitute(APP_CONFIG_GROUPS="\n".join(lines))


def _show(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # `dcrun --help | head` closes the pipe. Python flushes standard output once more when it exits, which would
        # print a traceback: so the output goes nowhere from here on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


class NewRun:
    """Hydra's task function of a run that begins: Hydra makes the folder, then calls this.

    Args:
        planned: the folder that Hydra will make.

    Attributes:
        code: the run's exit code; None until it has one.

    Raises:
        InputError: the folder cannot be made, or holds a run.
    """

    def __init__(self, planned: Path) -> None:
        folders.check_run_folder(planned, "hydra.run.dir")
        self.existing = folders.nearest_existing(planned)
        self.code: int | None = None

    def __call__(self, job: DictConfig) -> None:
        """Run, and turn an exception into the exit code; remove the folder if it holds nothing worth keeping."""
        own = HydraConfig.get()
        folder = Path(own.runtime.output_dir)
        _name_options(job, own.runtime.choices)
        with exit_codes.guard(folder, who=_who()) as ended:
            # Inside the guard: an import may fail too, as of a module of the user's with the name of one of ours.
            dispatch = _import_dispatch()
            ended.code = dispatch(job, folder)
        # Kept here, since `_run_hydra` returns nothing.
        self.code = ended.code
        if ended.code in (2, 130) or _only_answers(job):
            folders.discard(folder, self.existing)


def _sweep(args: argparse.Namespace, jobs: Sequence[DictConfig]) -> int:
    """Let Hydra run a sweep through `runner.sweeps.subprocess_launcher`; return 1 if any job failed."""
    if _world_size() > 1:
        raise InputError("--multirun: torchrun started several processes; allowed: a sweep without torchrun")
    for job in jobs:
        if isinstance(job.run.resume, str):
            allowed = "run.resume=true, which finds the jobs' earlier runs"
            raise InputError.of("run.resume", job.run.resume, "a sweep is not a single run", allowed)
    subprocess_launcher.check(jobs[0])
    submitit_launcher.check(jobs[0])
    folder = Path(str(jobs[0].hydra.sweep.dir))
    if all(job.run.resume for job in jobs):
        # The same sweep again: it continues in the folder that it left, which so may hold a sweep already.
        folders.check_writable(folder, "hydra.sweep.dir")
    else:
        folders.check_sweep_folder(folder, "hydra.sweep.dir")
    # Hydra makes the launcher and returns nothing of it: what became of the jobs is kept at its class.
    launched = subprocess_launcher.FreshProcessLauncher
    launched.jobs.clear()
    launched.stopped_by, launched.sweep, launched.refused = None, None, False
    code = _hydra(args)
    if launched.jobs and launched.sweep and not all(_only_answers(job) for job in jobs):
        print_table(launched.jobs, launched.sweep)
        if launched.stopped_by is None and not launched.refused:
            logged = wandb_table.write(jobs[0], launched.sweep, [job.folder for job in launched.jobs])
            if logged is not None:
                print(f"table and claims: wandb leet {logged}", flush=True)
    if launched.stopped_by is not None:
        return 128 + launched.stopped_by
    if launched.refused:
        return 2
    return 1 if code != 0 or any(job.code != 0 for job in launched.jobs) else 0


def _only_answers(job: DictConfig) -> bool:
    """Return whether a run prints or draws something instead of training."""
    return bool(job.run.estimate or job.run.advise or job.run.plot_schedule)


def _join(cfg: DictConfig, job: DictConfig, folder: Path | None, choices: Mapping[str, Any]) -> int:
    """Run without a new folder: continue a run in its own, or be a rank above 0, which has none.

    Hydra's task runner would make a folder, so its part of the work is done here: logging, and the names of options.
    """
    logging_config = OmegaConf.to_container(cfg.hydra.job_logging, resolve=False)
    assert isinstance(logging_config, dict)
    if folder is None:
        del logging_config["handlers"]["file"]
        logging_config["root"]["handlers"].remove("file")
    else:
        logging_config["handlers"]["file"]["filename"] = str(folder / "dcrun.log")
        folders.check_writable(folder, "run.resume")
    configure_log(OmegaConf.create(logging_config), cfg.hydra.verbose)
    _name_options(job, choices)
    with exit_codes.guard(folder, who=_who()) as ended:
        dispatch = _import_dispatch()
        ended.code = dispatch(job, folder)
    return ended.code


def _name_options(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Write the options chosen of each group to the section `names`, for messages and the summary."""
    with open_dict(cfg):
        cfg["names"] = {group: choices.get(group) for group in (*schema.GROUPS, "experiment")}


def _import_dispatch() -> Callable[[DictConfig, Path | None], int]:
    """Return the function that runs the training. It is imported late because it imports torch, for some seconds."""
    from runner.train.dispatch import dispatch

    return dispatch


def _who() -> str:
    """Return the name of this process for a line about an unexpected error; empty if it is the only one."""
    return f"rank {_rank()}" if _world_size() > 1 else ""


def _hydra(args: argparse.Namespace, run: NewRun | None = None) -> int:
    """Hand the checked command line to Hydra, as `hydra.main` does.

    Args:
        args: the flags and overrides.
        run: called when Hydra has made the run folder; None for a sweep, and for what Hydra does by itself.
    """

    def nothing(job: DictConfig) -> None:
        raise AssertionError("the jobs of a sweep run in their own processes")

    hydra.version.setbase(VERSION_BASE)
    try:
        _run_hydra(args, get_args_parser(), run or nothing, config_path=str(CONF), config_name="config")
    except SystemExit as exc:
        # Hydra exits so after --hydra-help and, with code 1, after --cfg with a --package that does not exist.
        if run is None or run.code is None:
            return 2 if exc.code and args.cfg else int(bool(exc.code))
    return 0 if run is None or run.code is None else run.code


class _Parser(argparse.ArgumentParser):
    """Parses Hydra's flags, and reports a wrong one in one line."""

    def __init__(self) -> None:
        super().__init__(prog="dcrun", parents=[get_args_parser()], add_help=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; dcrun --help lists the flags")


def _parse(arguments: list[str]) -> argparse.Namespace:
    args = _Parser().parse_intermixed_args(arguments)
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: dcrun has its own configuration; --config-dir adds a folder")
    if args.run + args.multirun + args.shell_completion + (args.cfg is not None) + (args.info is not None) > 1:
        raise InputError("only one of --run, --multirun, --cfg, --info and --shell-completion can be given")
    if args.resolve and not (args.cfg or args.help):
        raise InputError("--resolve: goes with --cfg or --help only")
    if args.config_dir is not None:
        folder = Path(args.config_dir).resolve()
        if not folder.is_dir():
            raise InputError(f"--config-dir={args.config_dir}: no such folder")
        # The flag itself is not passed to the jobs of a sweep; an override is.
        args.overrides.append(f"hydra.searchpath=[{quoted(folder.as_uri())}]")
        args.config_dir = None
    return args


def _rank() -> int:
    """Return the rank of this process under torchrun, else 0."""
    return int(os.environ.get("RANK", 0)) if _world_size() > 1 else 0


def _world_size() -> int:
    """Return how many processes torchrun started, 1 without it."""
    joined = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return int(os.environ["WORLD_SIZE"]) if joined else 1


if __name__ == "__main__":
    sys.exit(main())
