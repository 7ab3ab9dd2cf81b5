from typing import Any

import pytest
import torch
from torch import nn

from algorithms.base import Fields, Message
from runner.gradients.replica import Replica
from runner.simulated import compute_process
from runner.simulated.arena import Arena, lay_out
from runner.simulated.compute_process import Task, largest_result, result_fields
from runner.simulated.transfers import InPlace, Transfers
from tests.transfers import LateTransfers


class Oracle:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.replica = Replica(nn.Linear(3, 2))
        self.counts: Any = None

    def gradient(self) -> torch.Tensor:
        self.replica.backpropagate(self.replica.module(torch.ones(1, 3)).square().sum())
        return self.replica.gradient


class Tasks:
    """Push the gradient, times `factor`, and the same once more where `declared` says so."""

    def __init__(self, declared: Fields, factor: float, transfers: Transfers) -> None:
        self.oracle: Any = Oracle()
        self.declared, self.factor, self.transfers = declared, factor, transfers

    def fields(self, call: int, numbers: Any) -> Fields:
        return self.declared

    def perform(self, task: Task) -> Message | None:
        gradient = self.oracle.gradient()
        # The unchanged tensor itself where it can be, as most methods push it.
        pushed: torch.Tensor = gradient if self.factor == 1 else gradient * self.factor
        return dict.fromkeys(self.declared, pushed)


@pytest.mark.parametrize(
    ("declared", "factor", "transfers", "own"),
    [
        ({"g": 8}, 1, InPlace(), False),
        ({"g": 8}, 2, InPlace(), False),
        ({"g": 8, "same": 8}, 1, InPlace(), True),
        ({"g": 8}, 1, LateTransfers(), True),
    ],
    ids=["pushed as it is", "pushed doubled", "several tensors", "copied from a device"],
)
def test_gradient_is_collected_in_place(declared: Fields, factor: float, transfers: Transfers, own: bool):
    tasks, size = Tasks(declared, factor, transfers), largest_result([declared], 0)
    first, arena = tasks.oracle.replica.gradient, Arena(2 * size)
    transfers.attach(arena)
    expected = Oracle().gradient() * factor
    # Two places, and the first of them again: the vectors take turns.
    for place in (0, size, 0):
        arena.tensors(lay_out(result_fields(declared, 0), place))["g"].fill_(7)
        compute_process._done(tasks, Task(1, place=place), arena)
        result = arena.tensors(lay_out(result_fields(declared, 0), place))
        assert all(torch.equal(result[name], expected) for name in declared)
        tasks.oracle.replica.check_aliasing()
    assert bool(first.any()) == own, "the replica's own vector takes no memory unless it has to"
