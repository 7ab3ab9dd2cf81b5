"""Composes a command line and checks it, before Hydra creates a folder for it.

A configuration is composed before Hydra creates folders, because Hydra looks at values only afterwards:

1. `Composer` composes here, in memory, every job that the command line asks for. A mistake in the last job of a sweep
   is so reported in one line before the first job starts, and no folder is left behind. A single run gets what was
   composed and checked here (`runner.cli.start.begin`).
2. Hydra composes a sweep again when it makes the sweep's folder, sweeper and launcher (`runner.cli.main._hydra`).
3. In a sweep, the launcher needs the configuration of each job to know its folder and whether an earlier run is the
   same. It takes that of step 1; of an experiment or a search, which composes a part of its jobs there, it composes the
   others from the sweep's (`load_sweep_config`). Then it starts a process with the job's overrides as its command line,
   which begins with step 1: a job is exactly the run that a user would type.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.cli import own_folders
from runner.config import delays, override_errors, own_code, schema, validation, yaml_text
from runner.config.errors import InputError
from runner.config.old_names import rename_targets
from runner.config.schema import without_hydra
from runner.sweeps import experiment_sweeper, search_pruning, search_space

CONF = Path(__file__).resolve().parents[2] / "conf"
VERSION_BASE = "1.3"
# As Hydra's grammar writes an empty string.
_EMPTY = "''"


class Composer:
    """Turns `key=value` arguments into checked configurations; `composer()` makes one."""

    def __init__(self, loader: ConfigLoader):
        """Keep the loader, which knows the options of each group."""
        self.loader = loader

    def one(self, overrides: Sequence[str]) -> DictConfig:
        """Compose and check a single run.

        Returns:
            The configuration, with Hydra's own under `hydra`.

        Raises:
            InputError: one line about what is wrong.
        """
        # First, so that an argument that cannot be read is quoted as a whole.
        override_errors.parse(overrides, self.loader)
        try:
            cfg = self._compose(list(overrides))
            rename_targets(cfg)
            # The resolver `${hydra:...}` reads from this singleton.
            HydraConfig.instance().set_config(cfg)
            # Before the check, to which a missing value would come as the text "???".
            if missing := sorted(OmegaConf.missing_keys(without_hydra(cfg))):
                raise InputError(f"{missing[0]}=???: needs a value; give {missing[0]}=<value>")
            validation.check(without_hydra(cfg))
        except InputError:
            raise
        # Hydra raises ValueError for `group=null`.
        except RecursionError as exc:
            wrong = "an option's defaults lead back to itself, or it is nested too deep"
            raise InputError(f"{' '.join(overrides)}: {wrong}; allowed: options without circles") from exc
        except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError, OSError) as exc:
            # `_compose`, not `one`: to find out which keys there are, the configuration need not be correct.
            raise override_errors.explain(exc, overrides, self._compose, self.loader) from exc
        return cfg

    def sweep(self, overrides: Sequence[str]) -> list[DictConfig]:
        """Compose and check every job of a sweep: all combinations of the values given.

        Raises:
            InputError: one line about what is wrong.
        """
        parsed = override_errors.parse(overrides, self.loader)
        # Hydra's own overrides are not swept, but belong to every job.
        own = [str(override.input_line) for override in parsed if override.is_hydra_override()]
        try:
            # Hydra's own splitter, so that what is checked is what Hydra will run.
            batches = BasicSweeper.split_arguments([o for o in parsed if not o.is_hydra_override()], None)
        except HydraException as exc:
            for override in parsed:
                if isinstance(override.value(), IntervalSweep):
                    wrong = "only a search can choose from an interval"
                    allowed = "with hydra/sweeper=optuna, or values, as 1,2,5"
                    raise InputError(f"{override.input_line}: {wrong}; allowed: {allowed}") from exc
            raise InputError(str(exc)) from exc
        jobs = [self.one([*own, *job]) for batch in batches for job in batch]
        if any(o.value() is None for o in parsed):
            # Hydra composes the sweep without its swept keys first. `swept_along` makes that valid, but cannot turn
            # null or `~key` into a choice: so such a composition can fail, and is tried here, before any folder exists.
            self._base(overrides)
        return jobs

    def jobs(self, overrides: Sequence[str], *, multirun: bool) -> list[DictConfig]:
        """Compose and check what a command line asks for.

        Args:
            overrides: the arguments as typed.
            multirun: whether `--multirun` was given.

        Returns:
            The configuration of a single run; of every job of a sweep; of one job of each cell of an experiment; or of
            jobs that together have every value that a search may choose.

        Raises:
            InputError: one line about what is wrong.
        """
        parsed = override_errors.parse(overrides, self.loader)
        _check_files(parsed)
        _check_scale(parsed)
        _check_lists(parsed)
        self._check_experiment(parsed)
        # An experiment or another sweeper may turn the line into a sweep, so it is composed once to see.
        if any(o.key_or_group in ("experiment", "hydra/sweeper") and isinstance(o.value(), str) for o in parsed):
            base = self._base(overrides)
            own = [str(o.input_line) for o in parsed if o.is_hydra_override()]
            typed = [str(o.input_line) for o in parsed if not o.is_hydra_override()]
            # An experiment's file sets the mode, so a line without `-m` may be a sweep.
            if multirun or str(base.hydra.mode).endswith("MULTIRUN"):
                listed: list[list[str]] = []
                if search_space.uses_search(base):
                    searched = search_space.spaces(base, typed)
                    search_pruning.check(base, searched)
                    listed = [job for space in searched for job in space.corners()]
                elif experiment_sweeper.is_experiment(base):
                    listed = experiment_sweeper.one_per_cell(experiment_sweeper.jobs(base, typed))
                if listed:
                    jobs = [self.one([*own, *job]) for job in listed]
                    if base.hydra.sweeper.get("cells"):
                        find_data(jobs)
                    return jobs
            for override in (o for o in parsed if o.key_or_group == "seeds" and o.value() is not None):
                raise InputError(f"{override.input_line}: would do nothing; allowed: seed=0, or -m seed=0,1,2")
        return self.sweep(overrides) if multirun else [self.one(overrides)]

    def _base(self, overrides: Sequence[str]) -> DictConfig:
        """Compose the overrides that are not swept."""
        parsed = override_errors.parse(swept_along(overrides), self.loader)
        return self.one([str(o.input_line) for o in parsed if not o.is_sweep_override()])

    def _check_experiment(self, parsed: Sequence[Override]) -> None:
        """Refuse files beside the experiments that are not experiments, and a sweep over experiments that sweep."""
        chosen = [o for o in parsed if o.key_or_group == "experiment" and not o.is_delete()]
        # The list of all files takes a tenth of a second, and few commands name an experiment.
        known = override_errors.group_options("experiment", self.loader) if chosen else []
        for override in chosen:
            swept = override.is_discrete_sweep()
            names = list(override.sweep_string_iterator()) if swept else [str(override.value())]
            for name in names if swept else []:
                if name in known and experiment_sweeper.is_experiment(self._compose([f"experiment={name}"])):
                    raise InputError(
                        f"{override.input_line}: {name} is itself a sweep; allowed: one experiment at a time"
                    )
            for name in names:
                folder, _, file = name.rpartition("/")
                there = self.loader.get_group_options(f"experiment/{folder}", ObjectType.CONFIG)
                if file in there and name not in known:
                    allowed = [option for option in known if option.startswith(f"{folder}/")]
                    raise InputError.of(
                        "experiment", name, "holds data of experiments and is not an experiment", ", ".join(allowed)
                    )

    @staticmethod
    def _compose(overrides: list[str]) -> DictConfig:
        return compose("config", overrides, return_hydra_config=True)


def swept_along(overrides: Sequence[str]) -> list[str]:
    """Turn the keys of a swept group into sweeps of their one value.

    Before Hydra composes the jobs of a sweep, it composes the command line without the swept keys. A key that only the
    swept options have would then be unknown: in `algorithm=dasgd,local_sgd algorithm.tau=4`, `tau` is not a key of the
    default algorithm. As a sweep of one value the key is left out there too. The jobs are the same.

    Args:
        overrides: the arguments as typed; all of them readable (see `override_errors.parse`).

    Returns:
        The arguments, with `algorithm.tau=choice(4)` for `algorithm.tau=4` if `algorithm` is swept. If `experiment` is
        swept, this holds for the keys of every group, because an experiment may choose any group's option.
    """
    parsed = override_errors.parse(overrides)
    # A group is written with slashes, the section it fills with dots.
    swept = {o.key_or_group.replace("/", ".") for o in parsed if o.is_sweep_override()}
    sections = tuple(f"{name}." for name in (swept | set(schema.GROUPS) if "experiment" in swept else swept))
    return [_as_choice(o) if o.key_or_group.startswith(sections) else str(o.input_line) for o in parsed]


def _as_choice(override: Override) -> str:
    """Return `key=choice(value)`, or the override as typed if a choice would not give back the same value."""
    typed = str(override.input_line)
    if override.is_sweep_override() or override.value() is None:
        return typed
    key = override.get_key_element()
    # `key=` means an empty string; `choice()` has no values at all, so the string is written out.
    choice = f"{key}=choice({typed.partition('=')[2].strip() or _EMPTY})"
    # Quotes and escapes may come out of a choice differently; then the override stays as it is.
    given_back = next(override_errors.parse([choice])[0].sweep_string_iterator())
    same = override_errors.parse([f"{key}={given_back}"])[0].value() == override.value()
    return choice if same else typed


@contextmanager
def composer() -> Iterator[Composer]:
    """Give a `Composer` over `conf/`.

    Hydra keeps its state in a singleton, which belongs to this context while it is open: `hydra.main` works only after
    it.
    """
    with initialize_config_dir(str(CONF), job_name="dcrun", version_base=VERSION_BASE):
        yield Composer(GlobalHydra.instance().config_loader())


def _check_files(parsed: Sequence[Override]) -> None:
    """Refuse files of `--config-dir` that cannot be read: Hydra's errors about them are tracebacks, or do not come."""
    folders = [
        folder
        for override in parsed
        if override.key_or_group == own_folders.KEY and isinstance(override.value(), list)
        for folder in own_folders.option_folders(map(str, override.value()))  # pyright: ignore[reportArgumentType]
    ]
    for folder in folders:
        # Hydra warns in two lines of one that is missing, and goes on without the options that were meant.
        if not folder.is_dir():
            allowed = "folders with <group>/<option>.yaml"
            raise InputError.of("hydra.searchpath", str(folder), "no such folder", allowed)
    chosen = [
        (override.key_or_group, option)
        for override in parsed
        if not override.is_delete() and "." not in override.key_or_group
        for option in (override.sweep_string_iterator() if override.is_discrete_sweep() else [str(override.value())])
    ]
    yaml_text.check_options(folders, chosen)
    own_folders.check_shadowed(folders, chosen)


def _check_scale(parsed: Sequence[Override]) -> None:
    """Refuse `scale` and `seeds` without an experiment, and several values of them with one."""
    one = any(o.key_or_group == "experiment" and isinstance(o.value(), str) for o in parsed)
    for key, instead, single in (
        ("scale", "with experiment=...", "one at a time"),
        ("seeds", "with experiment=..., or -m seed=0,1,2", "how many, as seeds=2, or which, as seed=0,1"),
    ):
        for override in (o for o in parsed if o.key_or_group == key and o.value() is not None):
            if not one:
                raise InputError(f"{override.input_line}: would do nothing; allowed: {instead}")
            if override.is_sweep_override():
                raise InputError(f"{override.input_line}: gives several values; allowed: {single}")


def _check_lists(parsed: Sequence[Override]) -> None:
    """Refuse several options of a group at once, which Hydra would merge key by key; only loggers add to each other."""
    for override in parsed:
        key, value = override.key_or_group, override.value()
        if key not in (*schema.GROUPS, "experiment") or not isinstance(value, list):
            continue
        if key != "logger":
            allowed = f"one option, or a sweep: dcrun -m {key}={','.join(map(str, value))}"
            raise InputError(f"{override.input_line}: gives several options at once; allowed: {allowed}")
        if "none" in value and len(value) > 1:
            raise InputError(f"{override.input_line}: none stands alone; allowed: logger=none, or a list without it")
        if not value:
            raise InputError(f"{override.input_line}: names no logger; allowed: logger=none, or names in the list")
        if len(set(map(str, value))) < len(value):
            once = ",".join(dict.fromkeys(map(str, value)))
            raise InputError(f"{override.input_line}: names a logger twice; allowed: logger=[{once}]")


def find_data(jobs: Sequence[DictConfig]) -> None:
    """Report that data or delays are missing at once: before torch is imported, and not once per job of a sweep.

    Raises:
        InputError: naming `dataset.root` and where the data were looked for, or the file of delays and what is wrong.
    """
    for cluster in (job.cluster for job in jobs if job.cluster.compute.delays is not None):
        # With the number of workers, where the line says it; else `runner.train.workers` compares it with the file.
        delays.read(cluster.compute.delays, cluster.workers)
    for dataset in (job.dataset for job in jobs):
        # What `root` means to a dataset of the user's own, only that dataset knows.
        ours = own_code.is_projects(str(dataset.get("_target_")))
        if not ours or "root" not in dataset or dataset.get("download") or dataset.get("url"):
            continue
        root = Path(str(dataset.root or os.environ.get("DCRUN_DATA") or "data-sets"))
        try:
            wrong = None if root.expanduser().exists() else f"the data set is not there: {root} does not exist"
        except (OSError, RuntimeError) as exc:  # a name too long; the ~ of nobody
            wrong = f"the data set cannot be looked for: {getattr(exc, 'strerror', None) or exc}"
        if wrong:
            allowed = "where the data lie" + (", or dataset.download=true" if "download" in dataset else "")
            raise InputError.of("dataset.root", dataset.root, wrong, allowed)
