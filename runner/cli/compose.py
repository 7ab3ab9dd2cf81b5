"""Composes a command line and checks it, before Hydra creates a folder for it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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

from runner.config import override_errors, schema, validation
from runner.config.errors import InputError
from runner.config.old_names import rename_targets
from runner.config.schema import without_hydra
from runner.sweeps import experiment_sweeper, search_space

CONF = Path(__file__).resolve().parents[2] / "conf"
VERSION_BASE = "1.3"
_EMPTY = "''"


class Composer:
    """Turns `key=value` arguments into checked configurations; to be had from `composer()`."""

    def __init__(self, loader: ConfigLoader):
        """Keep what knows the options of each group."""
        self.loader = loader

    def one(self, overrides: Sequence[str]) -> DictConfig:
        """Compose and check a single run.

        Returns:
            The configuration, with Hydra's own under `hydra`.

        Raises:
            InputError: one line about what is wrong.
        """
        override_errors.parse(overrides, self.loader)
        try:
            cfg = self._compose(list(overrides))
            rename_targets(cfg)
            HydraConfig.instance().set_config(cfg)
            if missing := sorted(OmegaConf.missing_keys(without_hydra(cfg))):
                raise InputError(f"{missing[0]}=???: needs a value; give {missing[0]}=<value>")
            validation.check(without_hydra(cfg))
        except InputError:
            raise
        # ValueError: what Hydra raises for `group=null`.
        except (HydraException, OmegaConfBaseException, ValueError) as exc:
            raise override_errors.explain(exc, overrides, self._compose, self.loader) from exc
        return cfg

    def sweep(self, overrides: Sequence[str]) -> list[DictConfig]:
        """Compose and check every job of a sweep: all combinations of the values given.

        Raises:
            InputError: one line about what is wrong.
        """
        parsed = override_errors.parse(overrides, self.loader)
        own = [str(override.input_line) for override in parsed if override.is_hydra_override()]
        try:
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
            self._base(overrides)  # Hydra will, and null cannot be made a choice (see `swept_along`), nor can `~key`
        return jobs

    def jobs(self, overrides: Sequence[str], *, multirun: bool) -> list[DictConfig]:
        """Compose and check what a command line asks for.

        Args:
            overrides: the arguments as typed.
            multirun: whether `--multirun` was given.

        Returns:
            The configuration of a run, of all jobs of a sweep, of a job of each cell of an experiment, or of jobs that
            have all values that a search may choose.

        Raises:
            InputError: one line about what is wrong.
        """
        parsed = override_errors.parse(overrides, self.loader)
        _check_scale(parsed)
        self._check_experiment(parsed)
        if any(o.key_or_group in ("experiment", "hydra/sweeper") and isinstance(o.value(), str) for o in parsed):
            base = self._base(overrides)
            own = [str(o.input_line) for o in parsed if o.is_hydra_override()]
            typed = [str(o.input_line) for o in parsed if not o.is_hydra_override()]
            if multirun or str(base.hydra.mode).endswith("MULTIRUN"):
                listed: list[list[str]] = []
                if search_space.uses_search(base):
                    listed = [job for searched in search_space.spaces(base, typed) for job in searched.corners()]
                elif experiment_sweeper.is_experiment(base):
                    listed = experiment_sweeper.one_per_cell(experiment_sweeper.jobs(base, typed))
                if listed:
                    jobs = [self.one([*own, *job]) for job in listed]
                    if base.hydra.sweeper.get("cells"):
                        _find_data(jobs)
                    return jobs
            for override in (o for o in parsed if o.key_or_group == "seeds" and o.value() is not None):
                raise InputError(f"{override.input_line}: would do nothing; allowed: seed=0, or -m seed=0,1,2")
        return self.sweep(overrides) if multirun else [self.one(overrides)]

    def _base(self, overrides: Sequence[str]) -> DictConfig:
        """Compose what is not swept."""
        parsed = override_errors.parse(swept_along(overrides), self.loader)
        return self.one([str(o.input_line) for o in parsed if not o.is_sweep_override()])

    def _check_experiment(self, parsed: Sequence[Override]) -> None:
        """Refuse what lies beside experiments and is none, and several of those that are sweeps themselves."""
        known = override_errors.group_options("experiment", self.loader)
        for override in parsed:
            if override.key_or_group != "experiment" or override.is_delete():
                continue
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
    """Write the keys of a group that is swept as swept too, over the one value they have.

    Before it composes the jobs of a sweep, Hydra composes the rest without what is swept: a key that only the swept
    options have would be unknown to it. The jobs are the same.

    Args:
        overrides: the arguments as typed; all of them readable (see `mistakes.parse`).

    Returns:
        `algorithm.tau=choice(4)` for `algorithm.tau=4` where `algorithm` is swept, all others as they are. An
        experiment may choose any group's option.
    """
    parsed = override_errors.parse(overrides)
    swept = {o.key_or_group.replace("/", ".") for o in parsed if o.is_sweep_override()}
    sections = tuple(f"{name}." for name in (swept | set(schema.GROUPS) if "experiment" in swept else swept))
    return [_as_choice(o) if o.key_or_group.startswith(sections) else str(o.input_line) for o in parsed]


def _as_choice(override: Override) -> str:
    """Return a value as one to choose from; as it is what Hydra cannot choose, or would not give back as it was."""
    typed = str(override.input_line)
    if override.is_sweep_override() or override.value() is None:
        return typed
    key = override.get_key_element()
    # Nothing at all is an empty string, and no value among others.
    choice = f"{key}=choice({typed.partition('=')[2].strip() or _EMPTY})"
    given_back = next(override_errors.parse([choice])[0].sweep_string_iterator())
    same = override_errors.parse([f"{key}={given_back}"])[0].value() == override.value()
    return choice if same else typed


@contextmanager
def composer() -> Iterator[Composer]:
    """Give a `Composer` over `conf/`. Inside it Hydra is in use: `hydra.main` works only after it."""
    with initialize_config_dir(str(CONF), job_name="dcrun", version_base=VERSION_BASE):
        yield Composer(GlobalHydra.instance().config_loader())


def _check_scale(parsed: Sequence[Override]) -> None:
    """Refuse what an experiment has no use for, or what only an experiment has a use for where there is none."""
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


def _find_data(jobs: Sequence[DictConfig]) -> None:
    """Say at once that an experiment's data are not there, rather than once per job."""
    for dataset in (job.dataset for job in jobs):
        if "root" not in dataset or dataset.get("download"):
            continue
        root = Path(dataset.root or os.environ.get("DCRUN_DATA") or "data-sets")
        if not root.exists():
            wrong = f"this experiment needs its data set, and {root} does not exist"
            allowed = "where the data lie" + (", or dataset.download=true" if "download" in dataset else "")
            raise InputError.of("dataset.root", dataset.root, wrong, allowed)
