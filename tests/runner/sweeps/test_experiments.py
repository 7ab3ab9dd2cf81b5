"""Every experiment composes, and measures the cells that its paper's tables have."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.cli.compose import CONF, Composer
from runner.config import schema
from runner.config.errors import InputError
from runner.config.schema import without_hydra
from runner.report import published
from runner.report.evidence import measure_exhibit
from runner.report.run import Run
from runner.run_folder.trace import Trace
from runner.train.dispatch import dispatch
from tests.experiments import EXPERIMENTS, OWN, base_and_cells, cells, hydra_composer, scales

EXHIBITS = published.load()


@pytest.fixture(scope="module")
def compose() -> Iterator[Composer]:
    with hydra_composer() as made:
        yield made


SCALES = [
    # Composing takes a third of a second: the other scales are left to `make test-all`.
    pytest.param(experiment, scale, marks=() if scale == "quick" else pytest.mark.slow)
    for experiment in EXPERIMENTS
    for scale in scales(experiment)
]


@pytest.mark.parametrize(("experiment", "scale"), SCALES)
def test_experiment_composes_at_each_scale(compose: Composer, tmp_path: Path, experiment: str, scale: str) -> None:
    base, listed = base_and_cells(compose, experiment, scale, tmp_path)
    assert len(listed) > 0
    assert base.scale == scale
    assert base.run.resume is True
    assert base.run.name == experiment.partition("/")[0]
    # The slow tests below compose the jobs.


def test_methods_of_the_leaderboard_meet_the_same_messages(compose: Composer, tmp_path: Path) -> None:
    """One after the other at the same moments, with the same staleness, if they neither wait, drop nor stop."""
    jobs = cells(compose, "leaderboard/digits_heterogeneous", "quick", tmp_path)
    orders = {}
    for name in ("asgd", "dana_slim"):
        [job] = [job for job in jobs if f"algorithm={name}" in job]
        short = ["model=linear", "run.epochs=0.5", "cluster.record=true", "logger=none", "run.device=cpu"]
        full = compose.one([*job, *short, "run.resume=null", "hydra.mode=RUN"])
        cfg = without_hydra(full)
        with open_dict(cfg):
            cfg["names"] = {group: full.hydra.runtime.choices.get(group) for group in schema.GROUPS}
        (place := tmp_path / name).mkdir()
        assert dispatch(cfg, place) == 0
        orders[name] = Trace.read(str(place)).records
    assert len(orders["asgd"]) > 20
    assert orders["asgd"] == orders["dana_slim"]


THREE = (*(f"chapter {n}" for n in range(2, 7)), "ICML 2017", "preprint 2016", "ICLR 2022 submission")


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


@pytest.mark.parametrize(
    "experiment", [NEEDY[0], *(pytest.param(needy, marks=pytest.mark.slow) for needy in NEEDY[1:])]
)
@pytest.mark.parametrize("root", [["dataset.root=/nowhere/x"], []])
def test_missing_data_is_one_line(
    compose: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str, root: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"the data set is not there: .* does not exist"):
        compose.jobs([f"experiment={experiment}", "scale=paper", *root], multirun=False)


def test_exhibits_and_experiments_match() -> None:
    measured = {exhibit.command.removeprefix("dcrun experiment=") for exhibit in EXHIBITS}
    assert measured == set(EXPERIMENTS) - {*OWN}


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
        listed = cells(compose, experiment, scale, Path("/data"))
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
