"""Every experiment composes, measures the cells that its paper's tables have, and runs."""

import functools
import gzip
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from runner.cli.compose import CONF, Composer, composer
from runner.config import schema
from runner.config.errors import InputError
from runner.config.schema import without_hydra
from runner.report import published
from runner.report.evidence import measure_exhibit
from runner.report.run import Run
from runner.sweeps import experiment_sweeper, subprocess_launcher

EXPERIMENTS = sorted(
    f"{path.parent.name}/{path.stem}"
    for path in (CONF / "experiment").glob("*/*.yaml")
    if not path.stem.startswith("published")
)
EXHIBITS = published.load()
SHAPES = tuple(f"huo_thesis2020/figure{n}_{data}_shape" for n in (6, 7) for data in ("covtype", "rcv1"))
MADE_UP = ("huo_thesis2020/figure11", "huo_thesis2020/figure8", *SHAPES)
"""Experiments whose data are not read from anywhere."""
# A cell of each that runs fast; what a table's cells need is the data, shrunk by these overrides.
TINY = (
    "run.epochs=0.25",
    "schedule.warmup_epochs=0.1",
    "schedule.milestones=[]",
    "run.eval_every=1",
    "run.threads=1",
    "logger=none",
)


@pytest.fixture(scope="module")
def compose() -> Iterator[Composer]:
    schema.register()
    subprocess_launcher.register()
    experiment_sweeper.register()
    OmegaConf.register_new_resolver("random_hex", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    with composer() as made:
        yield made


def jobs(compose: Composer, experiment: str, scale: str, root: Path) -> list[list[str]]:
    typed = [f"experiment={experiment}", f"scale={scale}", f"dataset.root={root}"]
    if experiment.endswith(MADE_UP):
        typed.pop()
    return [[*job] for job in experiment_sweeper.one_per_cell(experiment_sweeper.jobs(compose.one(typed), typed))]


def scales(experiment: str) -> list[str]:
    """The scales of an experiment: its own, or those of the experiment that it is made from."""
    document = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())
    if own := document["hydra"]["sweeper"].get("scales") if "hydra" in document else None:
        return list(own)
    return scales(document["defaults"][0])


SCALES = [(experiment, scale) for experiment in EXPERIMENTS for scale in scales(experiment)]


@pytest.mark.parametrize(("experiment", "scale"), SCALES)
def test_experiment_composes_at_each_scale(compose: Composer, tmp_path: Path, experiment: str, scale: str) -> None:
    listed = jobs(compose, experiment, scale, tmp_path)
    # One job, since composing takes a third of a second; the slow tests below compose the others.
    cfg = compose.one(listed[-1])
    assert cfg.scale == scale
    assert cfg.run.resume is True
    assert cfg.run.name == experiment.partition("/")[0]


THREE = ("chapter 3", "chapter 5", "chapter 6", "ICML 2017", "preprint 2016", "ICLR 2022 submission")


def test_experiments_have_three_scales() -> None:
    three = {e.command.partition("=")[2] for e in EXHIBITS if e.paper.endswith(THREE)}
    assert three <= {experiment for experiment in EXPERIMENTS if set(scales(experiment)) == {"quick", "short", "paper"}}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_trace_header_describes_the_run(experiment: str) -> None:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    header = text.partition("\ndefaults:")[0]
    assert "figure" in header or "table" in header or "section" in header
    assert "scale: quick" in text or "defaults:\n  - " in text


NEEDY = ["dc_asgd_icml2017/table2", "dasgd_iclr2022/figure5a", "huo_thesis2020/figure14", "huo_thesis2020/figure12"]


@pytest.mark.parametrize("experiment", NEEDY)
@pytest.mark.parametrize("root", [["dataset.root=/nowhere/x"], []])
def test_missing_data_is_one_line(
    compose: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str, root: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"the data set is not there: .* does not exist"):
        compose.jobs([f"experiment={experiment}", "scale=paper", *root], multirun=False)


def test_exhibits_and_experiments_match() -> None:
    measured = {exhibit.command.removeprefix("dcrun experiment=") for exhibit in EXHIBITS}
    assert measured == set(EXPERIMENTS)


def as_run(cfg: DictConfig, number: int) -> Run:
    """What the run folder of a job would say."""
    plain: Any = OmegaConf.to_container(without_hydra(cfg), resolve=True)
    names = {group: cfg.hydra.runtime.choices[group] for group in ("algorithm", "model", "dataset", "cluster")}
    workers = plain["cluster"]["workers"] or (1 if names["algorithm"] in ("sgd", "nag", "lars", "clars") else 4)
    summary = {**names, "workers": workers, "seed": 0, "status": "completed", "final_test_error": 1.0 + number}
    run = Run(Path(f"/{number}"), str(number), summary, config=plain)
    run.rows = [{"epoch": 1.0, "test_error": 1.0}]
    return run


@pytest.fixture(scope="module")
def runs(compose: Composer) -> Callable[[str, str], list[Run]]:
    """What the folders of an experiment's runs would say, by experiment and scale."""

    @functools.cache
    def make(experiment: str, scale: str) -> list[Run]:
        listed = jobs(compose, experiment, scale, Path("/data"))
        return [as_run(compose.one(job), number) for number, job in enumerate(listed)]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.id)
def test_experiment_measures_every_cell(runs: Callable[[str, str], list[Run]], exhibit: published.Exhibit) -> None:
    experiment = exhibit.command.removeprefix("dcrun experiment=")
    block = measure_exhibit(exhibit, runs(experiment, "paper"))[0]
    assert set(block.cells) == {cell.id for cell in exhibit.cells}
    # What the paper's scale deviates in is known.
    deviations = {line.partition("=")[0] for line in block.deviations}
    assert deviations <= {"schedule.warmup_epochs", "run.diagnostic_samples"}, block.deviations


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the layout of CIFAR-10, MNIST and ImageNet."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split, per_class in (("train", 8), ("test", 2), ("val", 2)):
        for label in range(10):
            folder = root / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.JPEG", quality=90)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    raw = root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 80), ("t10k", 20)):
        images, labels = random.integers(0, 255, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            header = b"".join(int(value).to_bytes(4, "big") for value in (magic, *array.shape))
            with gzip.open(raw / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
    lines = (f"{2 * (i % 2) - 1} 1:{random.normal():.4f} 2:{random.normal():.4f}\n" for i in range(200))
    (root / "problem").write_text("".join(lines))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_one_cell_runs(compose: Composer, tiny_data: Path, tmp_path: Path, experiment: str) -> None:
    first = jobs(compose, experiment, "quick", tiny_data)[0]
    dataset = compose.one(first).dataset._target_
    root = tiny_data / ("mnist" if "mnist" in dataset.lower() else "images")
    own = [override for override in first if not override.startswith(("dataset.root=", "hydra."))]
    tiny = [*TINY, "run.batch_size=8", "run.micro_batch=null", "run.resume=null", "hydra.mode=RUN", "hydra.run.dir=run"]
    if "libsvm" in dataset:
        root = tiny_data / "problem"
        tiny += ["dataset.samples=null", "dataset.features=null"]
    if experiment in SHAPES:
        tiny += ["dataset.samples=400", "dataset.features=100"]
    if not experiment.endswith(MADE_UP):
        tiny += [f"dataset.root={root}", "dataset.limit_train=null", "dataset.limit_test=null"]
    if "imagenet" in dataset.lower():
        tiny += ["dataset.workers=0", "dataset.size=32", "model=imagenet_resnet18"]
    if "diagnostics" in (CONF / "experiment" / f"{experiment}.yaml").read_text():
        tiny += ["run.diagnostic_samples=16"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "runner.cli", *own, *tiny]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
