"""A run as the report sees it: where it looks a setting up, and what counts as a number."""

import math
from pathlib import Path
from typing import Any

import pytest

from runner.report.run import Run, finite


class Chosen(Run):
    """A run whose groups' options are known."""

    @property
    def choices(self) -> dict[str, Any]:
        return {"model": "resnet20", "algorithm": "ssgd"}

    def layer_rows(self) -> list[dict[str, Any]]:
        return [{"epoch": 1.0, "norm": {"a": 2.0}}, {"epoch": 2.0}, {"epoch": 3.0, "norm": 1.0}]


def run(**given: Any) -> Chosen:
    return Chosen(Path("runs/a"), "a", **given)


def test_summary_goes_before_configuration():
    found = run(
        summary={"algorithm": "asgd", "workers": None},
        config={"workers": 4, "schedule": {"lr": 0.5, "steps": [1, 2], "none": {}}},
    )
    assert found.value("algorithm") == "asgd"
    assert found.value("workers") == 4
    assert found.value("model") == "resnet20"
    assert found.value("schedule.lr") == 0.5
    assert found.value("model.depth") is None
    assert found.flat == {"workers": 4, "schedule.lr": 0.5, "schedule.steps": [1, 2], "schedule.none": {}}


@pytest.mark.parametrize(
    ("summary", "status", "ended"),
    [
        ({"status": "completed"}, "completed", True),
        ({"status": "diverged"}, "diverged", True),
        ({"status": "interrupted"}, "interrupted", False),
        ({"status": 3}, "broken", False),
        ({}, "broken", False),
    ],
)
def test_only_some_statuses_are_ends(summary: dict[str, Any], status: str, ended: bool):
    assert (run(summary=summary).status, run(summary=summary).ended) == (status, ended)


def test_seed_of_summary_or_configuration():
    assert run(summary={"seed": 3}, config={"seed": 4}).seed == 3
    assert run(config={"seed": 4}).seed == 4
    assert run(config={"seed": "many"}).seed is None


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), (0.5, 0.5), (True, None), ("1", None), (None, None), (math.nan, None), (math.inf, None)],
)
def test_numbers_are_finite(value: Any, number: float | None):
    assert finite(value) == number
    assert run(summary={"seconds": value}).number("seconds") == number


def test_curves_keep_gaps():
    rows = [{"loss": 2.0}, {"loss": math.nan}, {}, {"loss": 1}]
    assert run(rows=rows).curve("loss") == [2.0, None, None, 1]


def test_layers_without_the_quantity_are_left_out():
    assert run().layers("norm") == [{"epoch": 1.0, "norm": {"a": 2.0}}]
