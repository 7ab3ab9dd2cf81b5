"""The command `dcrun`: from a command line to a run and an exit code. Its help is `conf/hydra/help/dcrun.yaml`.

Exit codes: 0 completed, diverged or pruned, 1 anything unexpected (also a sweep with a failed job), 2 wrong input, 3 a
dead or stuck peer, 128 + n stopped by signal n: 129 SIGHUP, 130 Ctrl-C, 138 SIGUSR1, 140 SIGUSR2, 143 SIGTERM.

A command line is composed and checked before Hydra acts on it, so that a mistake costs one line and leaves no folder.
Nothing here imports torch: `runner.train.dispatch`, which runs the training, is imported only when a run really begins.
"""

import argparse
import functools
import logging
import operator
import os
import secrets
import shlex
import string
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra.version
from hydra._internal import utils as hydra_utils
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from runner.cli import completion, own_folders, relaunch, version
from runner.cli.compose import CONF, VERSION_BASE, composer, find_data, swept_along
from runner.cli.start import KEY, NewRun, begin, join, only_answers, told_by_rank_0
from runner.config import exit_codes, launcher, override_errors, schema, signals, startup
from runner.config.errors import InputError
from runner.config.output import lasting_output
from runner.config.paths import expanded, home_quoted, quoted
from runner.config.process_settings import check_threads, set_process
from runner.config.schema import without_hydra
from runner.report import sweep_end, wandb_table
from runner.run_folder import folders, live_status, resume
from runner.run_folder.contents import has_checkpoints
from runner.sweeps import (
    check_jobs,
    check_launcher,
    experiment_sweeper,
    lifeline,
    optuna_sweeper,
    search_space,
    submitit_launcher,
    subprocess_launcher,
)
from runner.sweeps.job import Job, output_console, print_table

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says.

    Args:
        arguments: the command line without the program's name; by default this process's.

    Returns:
        The exit code.
    """
    startup.begin(whole_process=arguments is None)
    startup.current().enter(startup.CONFIGURATION)
    # Before anything can import torch, which reads these settings when it is loaded.
    set_process()
    if "WORLD_SIZE" in os.environ:
        # Of a rank that is gone dcrun says one line; torch's C++ would print pages about each of its connections.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Around everything: a signal while configurations are composed or torch is imported must end with its own code.
    with lasting_output(), signals.raising():
        lifeline.hold()
        live_status.hold()
        try:
            _check_surroundings()
            command = _command(list(sys.argv[1:] if arguments is None else arguments))
            return command()
        except InputError as exc:
            # Under torchrun each rank finds the same mistake; one line on each machine is enough.
            if launcher.speaks():
                exit_codes.report(exc, launcher.prefix())
            return 2
        except KeyboardInterrupt as request:
            return signals.exit_code_of(request)
        except Exception as exc:  # noqa: BLE001 - the last resort: a line instead of a traceback
            return exit_codes.tell(exc, _who())


def _check_surroundings() -> None:
    """Refuse what no run can begin in: a folder that is gone, a number of threads that is none.

    Raises:
        InputError: naming the folder or variable.
    """
    try:
        os.getcwd()
    except OSError as exc:
        raise InputError("the current folder does not exist any more; allowed: cd to one that does") from exc
    check_threads()


def _command(arguments: list[str]) -> Callable[[], int]:
    """Compose and check a command line, and return what it asks for, which returns the exit code.

    Raises:
        InputError: something on the line is wrong.
    """
    args = _parse(arguments)
    if args.version:
        return functools.partial(_show, version.line())
    # Before anything is composed: the recorded run's overrides are part of a replay's command line.
    args.overrides += resume.recorded_overrides(args.overrides)
    args.overrides = own_folders.add(args.overrides)
    # config.yaml says the same, and Hydra does not take null for a group on the command line.
    args.overrides = [override for override in args.overrides if override != "experiment=null"]
    # Before the composition too: a search is a sweep without `-m`, and Hydra must compose it as one.
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
    # What Hydra shows by itself needs no composition of ours, and no check: completion must answer at once.
    if args.shell_completion:
        completion.install()
    if args.shell_completion or (shows and not args.overrides):
        return functools.partial(_hydra, args)
    # Of all jobs, in memory. Who composes a sweep anew is said in `runner.cli.compose`.
    with composer() as compose:
        jobs = compose.jobs(args.overrides, multirun=bool(args.multirun))
        cfg = jobs[0]
        if args.help:
            return functools.partial(_show, _help(cfg, compose.loader))
        parsed = override_errors.parse(args.overrides, compose.loader)
    sweeps = args.multirun or str(cfg.hydra.mode).endswith("MULTIRUN")
    if sweeps:
        # After the check, for Hydra alone: messages about the line quote it as it was typed.
        args.overrides = swept_along(args.overrides)
    if shows:
        return functools.partial(_hydra, args)
    # A finished run only shows its result, and a picture of the learning rate needs no data.
    if not (cfg.run.resume or cfg.run.plot_schedule):
        find_data(jobs)
    return functools.partial(_sweep, args, jobs) if sweeps else _run(cfg, parsed, compose.loader)


def _run(cfg: DictConfig, parsed: Sequence[Override], loader: ConfigLoader) -> Callable[[], int]:
    """Return what a single run's command line asks for: a new run, one that goes on, or an answer.

    Raises:
        InputError: the run cannot go on, or begin where it should.
    """
    # A run that goes on has its folder, so Hydra, which would make another one, is left out.
    if isinstance(cfg.run.resume, str):
        # The stored configuration is the run's, not what the line composes to: only a few keys of that count.
        if launcher.rank() > 0 and not expanded(cfg.run.resume, "run.resume").is_dir():
            # A folder that only rank 0's machine sees. Rank 0 tells what is in it.
            return functools.partial(join, cfg, told_by_rank_0(cfg), None, cfg.hydra.runtime.choices, _who())
        folder = resume.run_folder(cfg.run.resume)
        stored = resume.stored_config(folder, cfg, parsed)
        if cfg.run.evaluate_only:
            return functools.partial(
                join, cfg, resume.evaluated(stored, folder), None, resume.stored_choices(folder), _who()
            )
        own = folder if launcher.rank() == 0 else None
        return functools.partial(join, cfg, stored, own, resume.stored_choices(folder), _who())
    if cfg.run.resume:
        raise InputError.of(
            "run.resume", cfg.run.resume, "does not name a run", "a run folder, or null; true in a sweep"
        )
    if launcher.world_size() > 1 and cfg.cluster.kind != "processes":
        what = f"a launcher started {launcher.world_size()} processes (WORLD_SIZE)"
        raise InputError.of("cluster.kind", cfg.cluster.kind, what, "cluster=processes, or no RANK and WORLD_SIZE")
    # Only rank 0 goes through Hydra, which would make a folder on every rank.
    if launcher.rank() > 0:
        return functools.partial(join, cfg, without_hydra(cfg), None, cfg.hydra.runtime.choices, _who())
    if only_answers(cfg):
        # A question leaves no folder, and can be asked where none can be made.
        return functools.partial(join, cfg, without_hydra(cfg), None, cfg.hydra.runtime.choices, _who())
    planned = expanded(str(cfg.hydra.run.dir), KEY)
    if (earlier := relaunch.earlier_folder(planned)) is not None:
        print(f"dcrun: {relaunch.progress(earlier)}", file=sys.stderr)
        stored = resume.stored_config(earlier, cfg, ())
        stored.run.resume = str(earlier) if has_checkpoints(earlier) else None
        return functools.partial(join, cfg, stored, earlier, resume.stored_choices(earlier), _who())
    return functools.partial(begin, cfg, loader, NewRun(planned, _who()))


def _help(cfg: DictConfig, loader: ConfigLoader) -> str:
    """Fill the groups' options into the help text.

    Hydra's own help also searches the options of its own groups, which takes 0.3 seconds.
    """
    lines = []
    for group in (*schema.GROUPS, "experiment"):
        options = override_errors.group_options(group, loader)
        if options := [*options, *own_folders.options(map(str, cfg.hydra.searchpath), group)]:
            chosen = cfg.hydra.runtime.choices.get(group)
            lines.append(f"{group}: {', '.join(options)}" + (f"  (here: {chosen})" if chosen else ""))
    return string.Template(cfg.hydra.help.template).substitute(APP_CONFIG_GROUPS="\n".join(lines))


def _show(text: str) -> int:
    print(text, flush=True)
    return 0


def _sweep(args: argparse.Namespace, jobs: Sequence[DictConfig]) -> int:
    """Let Hydra run a sweep through `runner.sweeps.subprocess_launcher`; return 1 if any job failed."""
    if launcher.world_size() > 1:
        what = f"a launcher started {launcher.world_size()} processes (WORLD_SIZE)"
        raise InputError(f"--multirun: {what}; allowed: a sweep without torchrun, which starts its own")
    for job in jobs:
        if isinstance(job.run.resume, str):
            allowed = "run.resume=true, which finds the jobs' earlier runs"
            raise InputError.of("run.resume", job.run.resume, "a sweep is not a single run", allowed)
    check_launcher.check(jobs[0])
    submitit_launcher.check(jobs[0])
    subprocess_launcher.warm_up(jobs)
    if not search_space.uses_search(jobs[0]) and not only_answers(jobs[0]):
        # A search learns from what fails.
        check_jobs.check(jobs)
    folder = expanded(str(jobs[0].hydra.sweep.dir), SWEEP_KEY)
    args.overrides.append(f"{SWEEP_KEY}={quoted(str(folder))}")
    # The same sweep again continues in the folder that it left, which so may hold a sweep already.
    again = all(job.run.resume for job in jobs)
    check = folders.check_writable if again else folders.check_sweep_folder
    with folders.new_run_folder(folder, SWEEP_KEY, check):
        return _sweep_in(args, jobs)


def _sweep_in(args: argparse.Namespace, jobs: Sequence[DictConfig]) -> int:
    # Hydra makes the launcher and returns nothing of it: what became of the jobs is kept at its class.
    launched = subprocess_launcher.FreshProcessLauncher
    # What an earlier sweep of this process left, as in tests.
    launched.jobs.clear()
    launched.stopped_by, launched.sweep, launched.refused = None, None, False
    launched.composed = {tuple(job.hydra.overrides.task): job for job in jobs}
    code = _hydra(args)
    if launched.jobs and launched.sweep and not all(only_answers(job) for job in jobs):
        print_table(launched.jobs, launched.sweep)
        _print_end(jobs[0], launched.jobs, launched.sweep)
        if launched.stopped_by is None and not launched.refused:
            logged = wandb_table.write(jobs[0], launched.sweep, [job.folder for job in launched.jobs])
            if logged is not None:
                print(f"table and claims: wandb leet {logged}", flush=True)
    # Before failed jobs are looked at: those that were stopped have failed because of it.
    if launched.stopped_by is not None:
        return 128 + launched.stopped_by
    if launched.refused:
        return 2
    return 1 if code != 0 or any(job.code != 0 for job in launched.jobs) else 0


def _print_end(config: DictConfig, jobs: Sequence[Job], sweep: Path) -> None:
    """Print which method is best, of an experiment what its paper reports beside, and how to see more."""
    console, folders = output_console(), [job.folder for job in jobs]
    sweep_end.print_result(console, folders)
    experiment = config.hydra.runtime.choices.get("experiment")
    try:
        if experiment is not None:
            sweep_end.print_evidence(console, str(experiment), config.get("scale"), sweep, folders)
    except InputError as error:
        # The jobs are done: a broken archive that lies among their outputs must not make the sweep fail.
        log.warning("not compared with the paper: %s", error)
    print(f"curves and all runs: dcreport {shlex.quote(str(sweep))}", flush=True)


def _who() -> str:
    """Return the name of this process for a line about an unexpected error; empty if it is the only one."""
    return f"rank {launcher.rank()}" if launcher.world_size() > 1 else ""


def _hydra(args: argparse.Namespace) -> int:
    """Hand the checked command line to Hydra, as `hydra.main` does: a sweep, or what Hydra does by itself."""

    def nothing(job: DictConfig) -> None:
        raise AssertionError("the jobs of a sweep run in their own processes")

    hydra.version.setbase(VERSION_BASE)
    # Hydra prints a traceback where something fails, as where a full disk does not take its files; `main` says a line.
    hydra_utils.run_and_report = operator.call
    try:
        hydra_utils._run_hydra(args, get_args_parser(), nothing, config_path=str(CONF), config_name="config")
    except HydraException as exc:
        raise InputError(str(exc)) from exc
    except SystemExit as exc:
        # Hydra exits so after --hydra-help and, with code 1, after --cfg with a --package that does not exist.
        return 2 if exc.code and args.cfg else int(bool(exc.code))
    return 0


SWEEP_KEY = "hydra.sweep.dir"
"""The key that names a sweep's folder."""


class _Parser(argparse.ArgumentParser):
    """Parses Hydra's flags, and reports a wrong one in one line."""

    def __init__(self) -> None:
        # Hydra's parser has a --version, which tells Hydra's.
        super().__init__(prog="dcrun", parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
        self.add_argument("--version", action="store_true", help="show the version and exit")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; dcrun --help lists the flags")


def _parse(arguments: list[str]) -> argparse.Namespace:
    # Intermixed, since flags may stand between overrides, as in `dcrun a=1 -m b=2`.
    args = _Parser().parse_intermixed_args(arguments)
    args.overrides = [home_quoted(override) for override in args.overrides]
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: dcrun has its own configuration; --config-dir adds a folder")
    if args.run + args.multirun + args.shell_completion + (args.cfg is not None) + (args.info is not None) > 1:
        raise InputError("only one of --run, --multirun, --cfg, --info and --shell-completion can be given")
    if args.resolve and not (args.cfg or args.help):
        raise InputError("--resolve: goes with --cfg or --help only")
    if args.config_dir is not None:
        folder = expanded(args.config_dir, "--config-dir").resolve()
        if not folder.is_dir():
            raise InputError(f"--config-dir={args.config_dir}: no such folder")
        # The flag itself is not passed to the jobs of a sweep; an override is.
        # Not `as_uri`, which writes a blank as %20: Hydra takes what stands there for the path itself.
        args.overrides.append(f"hydra.searchpath=[{quoted(f'file://{folder}')}]")
        # Taken away, or Hydra would add the folder a second time.
        args.config_dir = None
    return args


if __name__ == "__main__":
    sys.exit(main())
