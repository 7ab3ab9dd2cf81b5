from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.sweeps.search_space import Space, implied, spaces

SWEEPER = {"sampler": "tpe", "n_trials": None, "metric": None, "seed": 0}
CELLS = {
    "cells": [
        "algorithm=dc_asgd_a algorithm.lambda0=0.5,2 schedule.lr=0.1,0.2,0.4",
        "scale=paper algorithm=sgd",
        "algorithm=clars algorithm.eta=1e-3,1e-2",
    ],
    "scales": {"quick": "run.epochs=3", "paper": "run.epochs=9"},
}


def config(seeds: int | None = None, **sweeper: Any) -> DictConfig:
    return OmegaConf.create({"scale": "quick", "seeds": seeds, "hydra": {"sweeper": {**SWEEPER, **sweeper}}})


def of(*typed: str, **sweeper: Any) -> list[Space]:
    return spaces(config(**sweeper), typed)


def test_lists_and_intervals_span_the_space() -> None:
    (space,) = of("model=mlp", "schedule.lr=0.1,0.2", "algorithm.lambda0=tag(log,interval(0.1,10))", "seed=3")
    assert space.fixed == ["model=mlp"]
    assert space.choices == {"schedule.lr": ["0.1", "0.2"]}
    assert list(space.intervals) == ["algorithm.lambda0"]
    assert space.seeds == [["seed=3"]]
    assert space.size == float("inf")
    assert space.point({"algorithm.lambda0": 1.23456789, "schedule.lr": "0.2"}) == (
        "schedule.lr=0.2",
        "algorithm.lambda0=1.235",
    )


def test_intervals_keep_integers_and_bounds() -> None:
    (space,) = of("cluster.workers=int(interval(2,8))", "schedule.lr=interval(0.12344,0.2)")
    assert space.point({"cluster.workers": 4, "schedule.lr": 0.12346}) == ("cluster.workers=4", "schedule.lr=0.1235")
    assert space.point({"cluster.workers": 4, "schedule.lr": 0.123441})[1] == "schedule.lr=0.12344"


def test_several_seeds_are_runs_of_one_trial() -> None:
    (space,) = of("schedule.lr=0.1,0.2", "seed=0,1")
    assert space.seeds == [["seed=0"], ["seed=1"]]
    assert space.size == 2
    assert of("schedule.lr=0.1,0.2")[0].seeds == [[]]


def test_single_value_is_not_a_choice() -> None:
    (space,) = of("schedule.lr=0.1,0.2", "algorithm.tau=choice(4)")
    assert space.choices == {"schedule.lr": ["0.1", "0.2"]}
    assert space.fixed == ["algorithm.tau=4"]


def test_experiment_lines_become_searches() -> None:
    first, second = spaces(config(2, **CELLS), [])
    assert first.choices == {"algorithm.lambda0": ["0.5", "2"], "schedule.lr": ["0.1", "0.2", "0.4"]}
    assert first.fixed == ["algorithm=dc_asgd_a", "run.epochs=3", "scale=quick", "seeds=null"]
    assert second.name == "algorithm=clars"
    assert first.seeds == second.seeds == [["seed=0"], ["seed=1"]]
    narrowed = spaces(config(**CELLS), ["schedule.lr=0.1", "run.epochs=1"])[0]
    assert "run.epochs=1" in narrowed.fixed
    assert list(narrowed.choices) == ["algorithm.lambda0"]


def test_corners_have_every_value_and_both_ends() -> None:
    (space,) = of("model=mlp", "schedule.lr=0.1,0.2,0.4", "algorithm.lambda0=interval(1,2)", "seed=0,1")
    assert space.corners() == [
        ["model=mlp", "schedule.lr=0.1", "algorithm.lambda0=1.0", "seed=0"],
        ["model=mlp", "schedule.lr=0.2", "algorithm.lambda0=2.0", "seed=0"],
        ["model=mlp", "schedule.lr=0.4", "algorithm.lambda0=2.0", "seed=0"],
    ]


@pytest.mark.parametrize(
    ("typed", "sweeper", "message"),
    [
        ("schedule.lr=0.1,0.2", {"sampler": "cma"}, "hydra.sweeper.sampler=cma: is not a sampler; allowed: tpe"),
        ("schedule.lr=0.1,0.2", {"n_trials": 0}, "hydra.sweeper.n_trials=0: is not a number of trials"),
        ("schedule.lr=0.1,0.2", {"n_trials": True}, "hydra.sweeper.n_trials=true: is not a number of trials"),
        ("schedule.lr=0.1,0.2", {"seed": "abc"}, "hydra.sweeper.seed=abc: is not a seed; allowed: integers from 0"),
        ("schedule.lr=0.1,0.2", {"seed": None}, "hydra.sweeper.seed=null: is not a seed"),
        ("schedule.lr=0.1,0.2", {"seed": -1}, "hydra.sweeper.seed=-1: is not a seed"),
        ("schedule.lr=0.1,0.2", {"seed": 2**32}, "hydra.sweeper.seed=4294967296: is not a seed"),
        ("schedule.lr=0.1,0.2", {"metric": "luck"}, "hydra.sweeper.metric=luck: is not a metric of a search"),
        ("dataset.validation=0.1,0.2", {}, "dataset.validation: cannot be searched: scores on different samples"),
        ("dataset.validation=interval(0.1,0.2)", {}, "dataset.validation: cannot be searched"),
        ("seed=0,1", {}, "leaves nothing to search"),
        ("schedule.lr=interval(2,1)", {}, r"schedule.lr=interval\(2,1\): is not an interval"),
        ("schedule.lr=tag(log,interval(0,1))", {}, r"schedule.lr=interval\(0,1\): is not an interval"),
        ("schedule.lr=interval(0,1)", {"sampler": "grid"}, "has no values for a grid"),
    ],
)  # fmt: skip
def test_unsearchable_settings_are_refused(typed: str, sweeper: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        of(typed, **sweeper)


def test_choosing_the_sweeper_makes_it_a_sweep() -> None:
    assert implied(["model=mlp", "hydra/sweeper=optuna"]) == ["hydra.mode=MULTIRUN"]
    assert implied(["model=mlp", "hydra/sweeper=basic"]) == []
