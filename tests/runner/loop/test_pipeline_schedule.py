from typing import Any

import torch
from torch import Tensor

from algorithms.base import Step
from algorithms.pipeline import Features
from runner.loop.pipeline_schedule import backward, counts_memory, forward, memory_columns, restore_module

STEP = Step(lr=0.1)


class Module:
    """A method that adds its rank to features, and sends ten times its rank down."""

    def __init__(self, rank: int, locked: bool, calls: list[Any]) -> None:
        self.rank, self.locked, self.calls = rank, locked, calls

    def forward(self, stage: str, features: Features) -> Tensor:
        self.calls.append(("forward", stage, features.inputs.item()))
        return features.inputs + self.rank

    def backward(self, stage: str, delta: Tensor | None, step: Step) -> Tensor:
        assert step is STEP
        self.calls.append(("backward", stage, None if delta is None else delta.item()))
        return torch.tensor(10.0 * self.rank)

    def load_state(self, state: Any) -> None:
        self.calls.append(("state", state))

    def load_pending(self, stage: str, pending: Any) -> None:
        self.calls.append(("pending", stage, pending))


def modules(locked: bool) -> tuple[Any, list[Any]]:
    calls: list[Any] = []
    return [Module(rank, locked, calls) for rank in range(3)], calls


def test_features_go_through_every_module():
    methods, calls = modules(locked=True)
    forward(methods, list("abc"), Features(0, torch.tensor(5.0), torch.zeros(1)))  # type: ignore[arg-type]
    assert calls == [("forward", "a", 5.0), ("forward", "b", 5.0), ("forward", "c", 6.0)]


def test_locked_modules_wait_for_the_same_iteration():
    methods, calls = modules(locked=True)
    sent = backward(methods, list("abc"), [torch.tensor(-1.0)] * 3, STEP)  # type: ignore[arg-type]
    assert calls == [("backward", "c", None), ("backward", "b", 20.0), ("backward", "a", 10.0)]
    assert [None if delta is None else delta.item() for delta in sent] == [0.0, 10.0, 20.0]


def test_decoupled_modules_take_the_iteration_before():
    methods, calls = modules(locked=False)
    before = [torch.tensor(-1.0), torch.tensor(-2.0), torch.tensor(-3.0)]
    backward(methods, list("abc"), before, STEP)  # type: ignore[arg-type]
    assert calls == [("backward", "c", None), ("backward", "b", -3.0), ("backward", "a", -2.0)]


def test_memory_counts_until_pipeline_fills():
    assert [counts_memory(step, 2) for step in (0, 4, 5, 100)] == [True, True, False, False]


def test_memory_columns_sum_the_modules():
    assert memory_columns([3, 4]) == {
        "activation_bytes": 7.0,
        "activation_bytes_module1": 3.0,
        "activation_bytes_module2": 4.0,
    }


def test_state_is_restored_before_what_is_pending():
    """What is pending may be recorded anew, at the weights that the state has."""
    methods, calls = modules(locked=True)
    state = {"methods": ["s0", "s1", "s2"], "kept": [[], [{"x": torch.ones(2)}], []]}
    restore_module(methods[1], "b", state, 1, torch.device("cpu"))
    assert calls[0] == ("state", "s1")
    assert [call[:2] for call in calls[1:]] == [("pending", "b")]
    assert torch.equal(calls[1][2][0]["x"], torch.ones(2))
