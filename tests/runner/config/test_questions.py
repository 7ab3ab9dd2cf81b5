from typing import Any

import pytest

from runner.config.errors import InputError
from runner.config.questions import QUESTIONS, check

NOTHING = {
    **dict.fromkeys(QUESTIONS, False),
    "plot_schedule": None,
    "profile": False,
    "timing_only": False,
    "resume": None,
}


@pytest.mark.parametrize(
    ("asked", "weights"),
    [
        ({}, None),
        ({}, "a"),
        ({"estimate": True}, "a"),
        ({"evaluate_only": True}, "a"),
        ({"evaluate_only": True, "resume": "a"}, None),
        ({"plot_schedule": "lr.png"}, None),
    ],
)
def test_one_question_at_a_time_passes(asked: dict[str, Any], weights: str | None):
    check(NOTHING | asked, weights)


@pytest.mark.parametrize(
    ("asked", "weights", "line"),
    [
        (
            {"evaluate_only": True, "estimate": True},
            "a",
            "run.evaluate_only=true: cannot be combined with another question; "
            "allowed: run.evaluate_only=true or run.estimate=true",
        ),
        ({"evaluate_only": True}, None, "run.evaluate_only=true: no weights are given; allowed: with run.resume="),
        ({"evaluate_only": True, "resume": True}, None, "run.evaluate_only=true: no weights are given; "),
        ({"evaluate_only": True, "timing_only": True}, "a", "run.evaluate_only=true: the clock alone has no weights"),
        ({"evaluate_only": True, "profile": True}, "a", "run.profile=true: would do nothing: nothing is trained"),
        ({"evaluate_only": True, "resume": "b"}, "a", "model.weights=a: the weights are those of run.resume"),
    ],
)
def test_what_does_not_go_with_a_question_is_refused(asked: dict[str, Any], weights: str | None, line: str):
    with pytest.raises(InputError) as refused:
        check(NOTHING | asked, weights)
    assert str(refused.value).startswith(line)
