"""What a message must be; what becomes of one that is not is tested with the executors."""

from typing import Any

import pytest
import torch

from algorithms.base import Field
from runner.config.errors import InputError
from runner.loop.messages import check_averaged, check_message, check_module, check_states

DECLARED = {"g": 3, "ids": Field(2, torch.int64)}
GOOD = {"g": torch.ones(3), "ids": torch.tensor([1, 2])}


class Method:
    combine = "mean"


def test_declared_messages_pass_as_they_are():
    assert check_message(Method(), "push", GOOD, DECLARED) is GOOD
    assert check_message(Method(), "push", {}, {}) == {}
    doubles = {"g": torch.ones(3, dtype=torch.float64), "ids": torch.tensor([1, 2])}
    assert check_message(Method(), "push", doubles, DECLARED, torch.float64) is doubles


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (GOOD | {"x": torch.ones(1)}, "field x is not declared; allowed: g, ids"),
        ({"g": torch.ones(3)}, "field ids is missing; allowed: all of g, ids"),
        ({}, "field g is missing; allowed: all of g, ids"),
        (GOOD | {"g": torch.ones(3).double()}, r"field g is float64 of shape \[3\]; allowed: float32 of shape \[3\]"),
        (GOOD | {"g": torch.ones(1, 3)}, r"field g is float32 of shape \[1, 3\]; allowed: float32 of shape \[3\]"),
        (GOOD | {"g": torch.ones(1)}, r"field g is float32 of shape \[1\]; allowed: float32 of shape \[3\]"),
        (GOOD | {"g": torch.tensor(1.0)}, r"field g is float32 of shape \[\]; allowed: float32 of shape \[3\]"),
        (GOOD | {"ids": torch.ones(2)}, r"field ids is float32 of shape \[2\]; allowed: int64 of shape \[2\]"),
        (GOOD | {"g": 1.5}, r"field g is of type float; allowed: float32 of shape \[3\]"),
        (None, "is None; allowed: a dictionary of tensors"),
    ],
)
def test_undeclared_messages_are_refused(message: Any, wrong: str):
    with pytest.raises(InputError, match=rf"^Method, push: {wrong}$"):
        check_message(Method(), "push", message, DECLARED)


def test_averages_are_of_float32():
    method: Any = Method()
    check_averaged(method, {"g": 3})
    with pytest.raises(
        InputError, match=r"^Method, contribution: field ids is declared int64, and .*; allowed: float32"
    ):
        check_averaged(method, DECLARED)
    method.combine = "gather"
    check_averaged(method, DECLARED)


@pytest.mark.parametrize(("call", "rank"), [("forward", 0), ("backward", 1)])
def test_modules_send_features_of_their_edge(call: str, rank: int):
    outputs = [(6,), (4,)]
    check_module(Method(), outputs, call, rank, torch.ones(5, 6))
    for wrong in (torch.ones(5, 4), torch.ones(5, 6, dtype=torch.bfloat16)):
        with pytest.raises(
            InputError, match=rf"^Method, .* of module {rank + 1}: is .*; allowed: float32 of shape \[B, 6\]$"
        ):
            check_module(Method(), outputs, call, rank, wrong)


def test_what_goes_nowhere_is_not_checked():
    check_module(Method(), [(6,), (4,)], "forward", 1, torch.ones(5, 9))
    check_module(Method(), [(6,), (4,)], "backward", 0, torch.ones(5, 9))
    check_module(Method(), [(6,), (4,)], "backward", 1, None)


def test_workers_states_are_alike():
    def worker(size: int) -> Any:
        method: Any = Method()
        method.state = lambda: {"w": torch.ones(3), "alpha": torch.ones(size)}
        return method

    check_states([worker(4), worker(4)])
    wrong = (
        r"^Method, state: alpha is float32 of shape \[5\] on worker 1; allowed: float32 of shape \[4\], as on worker 0$"
    )
    with pytest.raises(InputError, match=wrong):
        check_states([worker(4), worker(5)])
