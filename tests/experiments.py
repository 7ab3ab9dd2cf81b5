"""The experiments of conf/experiment/, and their cells."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from runner.cli.compose import CONF, Composer, composer
from runner.config import schema
from runner.sweeps import experiment_sweeper, subprocess_launcher

EXPERIMENTS = sorted(
    f"{path.parent.name}/{path.stem}"
    for path in (CONF / "experiment").glob("*/*.yaml")
    if not path.stem.startswith("published")
)


OWN = [name for name in EXPERIMENTS if name.endswith("_own")]
"""Those of a method that the user names, which no table has."""


@contextmanager
def hydra_composer() -> Iterator[Composer]:
    """Give what composes a command line as the command does."""
    schema.register()
    subprocess_launcher.register()
    experiment_sweeper.register()
    OmegaConf.register_new_resolver("random_hex", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    with composer() as made:
        yield made


def scales(experiment: str) -> list[str]:
    """The scales of an experiment: its own, or those of the experiment that it is made from."""
    document = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())
    if own := document["hydra"]["sweeper"].get("scales") if "hydra" in document else None:
        return list(own)
    return scales(document["defaults"][0])


def base_and_cells(compose: Composer, experiment: str, scale: str, root: Path) -> tuple[DictConfig, list[list[str]]]:
    """Return an experiment's own configuration, and the overrides of a job of each of its cells.

    Data that are read from somewhere are at `root`.
    """
    typed = [f"experiment={experiment}", f"scale={scale}"]
    base = compose.one(typed)
    if "root" in base.dataset:
        typed.append(f"dataset.root={root}")
    return base, [[*job] for job in experiment_sweeper.one_per_cell(experiment_sweeper.jobs(base, typed))]


def cells(compose: Composer, experiment: str, scale: str, root: Path) -> list[list[str]]:
    """Return the overrides of a job of each cell of an experiment."""
    return base_and_cells(compose, experiment, scale, root)[1]
