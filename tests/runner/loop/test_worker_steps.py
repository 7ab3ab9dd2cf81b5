from types import SimpleNamespace
from typing import Any

import pytest
import torch

from algorithms.base import Batch, Message, Oracle, Worker
from runner.config.errors import InputError
from runner.gradients.replica import running_average
from runner.loop.worker_steps import take_steps


class Half(Worker):
    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        if batch.step == 0:
            self.drawn = list[float]()
        self.drawn.append(float(torch.rand(())))
        g = oracle.gradient(pulled["w"], batch)
        return {"g": g} if pulled["w"] > 0 else {}


class Oracles:
    """A gradient that is the batch's number, as are its batch-norm statistics."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.replica = SimpleNamespace(weights=torch.zeros(1), statistics=torch.zeros(2))
        self.expected = list[int]()

    def expect(self, batch: Batch) -> None:
        self.expected.append(batch.number)

    def gradient(self, w: torch.Tensor, batch: Batch) -> torch.Tensor:
        self.replica.statistics.fill_(batch.number)
        return torch.tensor([float(batch.number)])


def steps(*numbers: int) -> list[Batch]:
    return [Batch(number, 0, torch.arange(1), step=step) for step, number in enumerate(numbers)]


def taken(oracle: Any, numbers: tuple[int, ...], w: float = 1.0, **more: Any) -> tuple[Half, Message]:
    half = Half()
    message = take_steps(half, oracle, {"w": torch.tensor([w])}, steps(*numbers), seed=3, pushed={"g": 1}, **more)
    return half, message


def test_last_message_is_pushed_and_others_are_waited_for():
    oracle, between = Oracles(), list[int]()
    _, message = taken(oracle, (4, 9, 2), between=lambda batch: between.append(batch.number))
    assert message["g"].item() == 2
    assert between == [4, 9]
    assert oracle.expected == [9, 2]


@pytest.mark.parametrize("numbers", [(4,), (4, 9, 2)])
def test_statistics_are_taken_in_as_one_by_one(numbers: tuple[int, ...]):
    oracle, running, expected = Oracles(), torch.ones(2), torch.ones(2)
    taken(oracle, numbers)
    running_average(running, oracle.replica.statistics, len(numbers))
    for number in numbers:
        running_average(expected, torch.full((2,), float(number)))
    torch.testing.assert_close(running, expected, rtol=1e-6, atol=0)
    assert len(numbers) > 1 or torch.equal(running, expected)


def test_each_batch_has_draws_of_its_own():
    """A batch's are the same wherever it comes in a period."""
    first = taken(Oracles(), (4, 9, 2))[0].drawn
    assert taken(Oracles(), (2, 4))[0].drawn == [first[2], first[0]]
    assert len(set(first)) == 3


def test_another_message_than_declared_is_refused():
    with pytest.raises(InputError, match="Half, push: field g is missing; allowed: all of g"):
        taken(Oracles(), (1, 2), w=0.0)
