"""On a CPU with doubles of page-locked memory and of events; a GPU's own are in `test_gpu`."""

from typing import Any

import pytest
import torch

from runner.gradients.async_scalars import AsyncScalars


class Event:
    """An event that has passed when the test says so."""

    passed = False

    def query(self) -> bool:
        return self.passed

    def record(self, stream: object) -> None:
        type(self).passed = False


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    empty: Any = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **given: empty(*size, **given))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(Event, "passed", False)


def test_first_call_knows_nothing():
    assert AsyncScalars()(torch.tensor([1.0, 2.0])) is None


def test_values_are_those_of_an_earlier_call():
    scalars, numbers = AsyncScalars(), torch.tensor([1.0, 2.0])
    scalars(numbers)
    numbers.fill_(7)
    Event.passed = True
    assert scalars(numbers) == [1.0, 2.0]
    Event.passed = True
    assert scalars(numbers) == [7.0, 7.0]


def test_copies_under_way_are_left_alone():
    scalars, numbers = AsyncScalars(), torch.tensor([1.0])
    scalars(numbers)
    numbers.fill_(5)
    assert scalars(numbers) is None, "the copy has not arrived"
    numbers.fill_(6)
    Event.passed = True
    assert scalars(numbers) == [1.0], "no second copy was started meanwhile"
