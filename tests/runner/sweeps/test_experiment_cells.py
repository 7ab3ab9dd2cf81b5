"""Cells of every experiment run, with each of its methods, networks and keys, cut to a few updates on some noise."""

import functools
import gzip
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf, open_dict
from PIL import Image

from runner.cli.compose import Composer
from runner.config import schema
from runner.config.schema import without_hydra
from runner.report import folder, metrics, published
from runner.report.run import Run
from runner.train.dispatch import dispatch
from tests.experiments import EXPERIMENTS, OWN, cells, hydra_composer, scales

# Seconds a batch, or gigabytes, on a CPU; smaller networks of the same families run.
TOO_LARGE = ("resnet101", "resnet152", "resnet164", "dpn92")
CUT = {
    "run.epochs": 0.25,
    "run.batch_size": 8,
    "run.micro_batch": "null",
    "run.eval_every": 1,
    "run.threads": 1,
    "run.device": "cpu",
    "run.resume": "null",
    "logger": "none",
    "schedule.warmup_epochs": 0.1,
    "schedule.milestones": "[]",
    "dataset.limit_train": "null",
    "dataset.limit_test": "null",
    # Of images in folders and of files in LIBSVM's format; other data do without.
    "dataset.size": 32,
    "dataset.workers": 0,
    "dataset.samples": "null",
    "dataset.features": "null",
    "run.diagnostic_samples": 16,
    # The method's first phase ends within the run.
    "algorithm.sgd_epochs": 0.1,
}
# Of modules there are as many as the cell says, where it says where the network is cut.
MOST_WORKERS = 4
# What makes a cell no other one: it is cut, or says how often the cell runs.
ALIKE = {*CUT, "scale", "seeds", "seed", "cluster.workers", "dataset.root"}
# In a second or two: it stands for all where slow tests are left out.
QUICKEST = "huo_thesis2020/figure2"
MADE_UP = {"samples": 80, "features": 100, "train": 80, "test": 20}
"""At most so much of data that are not read from anywhere."""


@pytest.fixture(scope="module")
def compose() -> Iterator[Composer]:
    with hydra_composer() as made:
        yield made


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the layouts of CIFAR-10 and ImageNet, of CIFAR-100, of MNIST, and of LIBSVM."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, classes, splits in (
        ("images", 10, {"train": 8, "test": 2, "val": 2}),
        ("hundred", 100, {"train": 1, "test": 1}),
    ):
        for split, count in splits.items():
            for label, number in itertools.product(range(classes), range(count)):
                place = root / name / split / f"class{label}"
                place.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.JPEG", quality=90)
                Image.fromarray(pixels).save(place / f"{number}.png")
    raw = root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 80), ("t10k", 20)):
        images, labels = random.integers(0, 255, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            header = b"".join(int(value).to_bytes(4, "big") for value in (magic, *array.shape))
            with gzip.open(raw / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
    lines = (f"{2 * (i % 2) - 1} 1:{random.normal():.4f} 2:{random.normal():.4f}\n" for i in range(80))
    (root / "problem").write_text("".join(lines))
    return root


def sets(job: list[str]) -> set[tuple[str, str | None]]:
    """What a cell sets: each key, with its value if that is a word, as a method, a network or an option."""
    found = set()
    for override in job:
        key, _, value = override.partition("=")
        if key not in ALIKE and not key.startswith("hydra."):
            found.add((key, value if value.replace("_", "").isalnum() and not value[0].isdigit() else None))
    return found


def workers(job: list[str]) -> int:
    return max((int(o.rpartition("=")[2]) for o in job if o.startswith("cluster.workers=")), default=0)


def cut(compose: Composer, job: list[str], noise: Path) -> DictConfig:
    """The configuration of a job that takes seconds."""
    own = [override for override in job if not override.startswith(("dataset.root=", "hydra."))]
    full = compose.one(job)
    short: dict[str, Any] = {}
    for key, value in CUT.items():
        section, _, name = key.rpartition(".")
        # A key that is not there, or does nothing there, stays as it is.
        if not section or OmegaConf.select(full, key) is not None or (section == "run" and name in full.run):
            short[key] = value
    if (full.cluster.workers or 1) > MOST_WORKERS and full.algorithm.get("split") is None:
        short["cluster.workers"] = MOST_WORKERS
    if "root" not in full.dataset:
        short |= {f"dataset.{name}": min(n, full.dataset[name]) for name, n in MADE_UP.items() if name in full.dataset}
    else:
        data = str(full.dataset._target_).lower()
        own_noise = {"mnist": "mnist", "libsvm": "problem", "cifar100": "hundred"}
        short["dataset.root"] = noise / next((own_noise[name] for name in own_noise if name in data), "images")
    cfg = compose.one([*own, *(f"{key}={value}" for key, value in short.items()), "hydra.mode=RUN"])
    named = without_hydra(cfg)
    with open_dict(named):
        named["names"] = {group: cfg.hydra.runtime.choices.get(group) for group in schema.GROUPS}
    return named


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[DictConfig], Run]:
    """Trains what a configuration describes, once, and reads the run's folder."""

    @functools.cache
    def train(configuration: str) -> Run:
        place = tmp_path_factory.mktemp("run")
        assert dispatch(DictConfig(json.loads(configuration)), place) == 0
        trained = folder.read(place, "run")
        # Weights and checkpoints of all these runs would be gigabytes.
        shutil.rmtree(place)
        return trained

    def trained(cfg: DictConfig) -> Run:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        return train(json.dumps(plain, sort_keys=True))

    return trained


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=() if name == QUICKEST else pytest.mark.slow) for name in EXPERIMENTS]
)
def test_every_method_network_and_key_runs(
    compose: Composer, noise: Path, run: Callable[[DictConfig], Run], experiment: str
) -> None:
    jobs = [job for scale in scales(experiment) for job in cells(compose, experiment, scale, noise)]
    chosen: list[DictConfig] = []
    seen: set[tuple[str, str | None]] = set()
    # Fewest workers first: a cell runs if it sets something that no earlier one has set.
    for job in sorted(jobs, key=workers):
        if not chosen or sets(job) - seen:
            cfg = cut(compose, job, noise)
            if cfg.names.model not in TOO_LARGE:
                chosen.append(cfg)
                seen |= sets(job)
    assert chosen
    mine = [exhibit for exhibit in published.load() if exhibit.command == f"dcrun experiment={experiment}"]
    assert bool(mine) == (experiment not in OWN)
    for cfg in chosen:
        trained = run(cfg)
        assert trained.rows, cfg.names
        # At rates that are not for noise some methods diverge; that is a result, too.
        if trained.status != "diverged":
            assert trained.status == "completed", cfg.names
            on_data = [exhibit for exhibit in mine if is_on(exhibit, cfg.names.dataset)]
            fitting = [exhibit for exhibit in on_data if shows(exhibit, cfg.names.algorithm)]
            assert bool(fitting) == bool(mine), cfg.names
            missing = [key for exhibit in fitting for key in shown(exhibit) if metrics.measured(trained, key) is None]
            assert not missing, cfg.names


def is_on(exhibit: published.Exhibit, dataset: str) -> bool:
    """Whether an exhibit shows runs on these data: ten classes, which stand in for ImageNet's, have no top-5 error."""
    own = exhibit.match.get("dataset", dataset)
    return dataset in (own["any"] if isinstance(own, dict) else [own])


def shows(exhibit: published.Exhibit, method: str) -> bool:
    """Whether an exhibit has a column of a method, or columns of all: a gap is of those with a server."""
    methods = [cell.match.get("algorithm") for cell in exhibit.cells]
    return method in methods or not all(isinstance(one, str) for one in methods)


def shown(exhibit: published.Exhibit) -> list[str]:
    """What an exhibit shows of each of its runs, unless it is when a run comes to a target."""
    drawn = [exhibit.x, *exhibit.y] if exhibit.kind == "curves" else []
    named = [f"final_{key}" for key in drawn]
    return [*named, *([exhibit.metric] if "_to" not in exhibit.metric else [])]
