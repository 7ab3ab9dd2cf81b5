"""What a search goes by, and when it says that it chooses on the test set."""

import pytest
from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.sweeps.objective import OBJECTIVES, REPORTED, objective, warning

SPLIT = "dataset.validation=0.1"


def config(metric: str | None = None, validation: float | None = None) -> DictConfig:
    return OmegaConf.create({"hydra": {"sweeper": {"metric": metric}}, "dataset": {"validation": validation}})


@pytest.mark.parametrize(
    ("validation", "fixed", "expected"),
    [
        (None, [], "best_test_error"),
        (None, ["model=mlp", SPLIT], "best_validation_error"),
        (None, [f"+{SPLIT}"], "best_validation_error"),
        (0.1, [], "best_validation_error"),
        (0.1, ["dataset.validation=null"], "best_test_error"),
        (0.1, ["~dataset.validation"], "best_test_error"),
        (None, ["dataset.validation=null", SPLIT], "best_validation_error"),
    ],
)
def test_validation_error_if_there_is_one(validation: float | None, fixed: list[str], expected: str):
    assert objective(config(validation=validation), fixed) == expected


def test_dataset_need_not_have_the_key():
    assert objective(OmegaConf.create({"hydra": {"sweeper": {"metric": None}}}), []) == "best_test_error"


@pytest.mark.parametrize("metric", list(OBJECTIVES))
def test_metric_asked_for_is_taken(metric: str):
    assert objective(config(metric), [SPLIT]) == metric


@pytest.mark.parametrize("metric", list(REPORTED))
def test_validation_metric_needs_a_split(metric: str):
    message = (
        rf"^hydra\.sweeper\.metric={metric}: there is no validation split; allowed: with dataset\.validation=0\.1, or"
    )
    with pytest.raises(InputError, match=message):
        objective(config(metric), [])


def test_choosing_on_the_test_set_is_told():
    assert warning(["best_validation_error", "seconds", "final_train_loss"]) is None
    for metric in ("best_test_error", "final_test_error"):
        line = warning(["best_validation_error", metric])
        assert line is not None
        assert line.startswith(f"hydra.sweeper.metric={metric}: settings are chosen on the test set")


@pytest.mark.parametrize("fixed", [["run.timing_only=true"], ["model=mlp", "+run.timing_only=True"]])
def test_clock_alone_is_searched_by_seconds(fixed: list[str]):
    assert objective(config("seconds"), fixed) == "seconds"
    assert objective(config(), ["run.timing_only=false"]) == "best_test_error"
    for metric in (None, "best_test_error", "final_train_loss"):
        message = r"^hydra\.sweeper\.metric=(null|\w+): run\.timing_only=true trains nothing .*; allowed: seconds$"
        with pytest.raises(InputError, match=message):
            objective(config(metric), fixed)
