from multiprocessing import get_context
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Field
from runner.config.errors import InputError
from runner.simulated.arena import (
    ALIGNMENT,
    Arena,
    Place,
    check_moved,
    end_of,
    lay_out,
    lay_out_state,
    move_state,
    stacked,
)


def test_tensors_lie_apart_and_aligned():
    places = lay_out({"w": 3, "ids": Field(2, torch.int64), "none": 0, "last": 1}, 128)
    arena = Arena(end_of(places, 0))
    tensors = arena.tensors(places)
    for number, tensor in enumerate(tensors.values()):
        tensor.fill_(number)
        assert tensor.data_ptr() % ALIGNMENT == 0 or not tensor.numel()
    assert [tensor.tolist() for tensor in tensors.values()] == [[0.0] * 3, [1, 1], [], [3.0]]
    assert tensors["ids"].dtype is torch.int64
    assert arena.place_of(tensors["ids"]) == places["ids"]
    assert arena.place_of(torch.zeros(3)) is None
    assert [arena.tensor(place).shape for place in stacked(Place(0, (2, 3)), 2)] == [(2, 3), (2, 3)]


def write(arena: Arena, place: Place) -> None:
    arena.tensor(place).copy_(torch.tensor([1.0, 2.0]))


def test_another_process_writes_to_it():
    arena, place = Arena(256), Place(64, (2,))
    process = get_context("forkserver").Process(target=write, args=(arena, place))
    process.start()
    process.join()
    assert arena.tensor(place).tolist() == [1.0, 2.0]


class Method:
    """A method's state: kept as it is, seen twice, or a copy."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.w = torch.arange(6.0).view(2, 3).clone()
        self.view = self.w[0] if kind == "viewed" else None

    def state(self) -> dict[str, Tensor]:
        return {"w": self.w.clone() if self.kind == "copied" else self.w}


def moved(kind: str, keep: bool = True) -> tuple[Any, Arena, dict[str, Place]]:
    method: Any = Method(kind)
    places = lay_out_state(method.state(), 0)
    arena = Arena(end_of(places, 0))
    move_state(method, arena, places, keep=keep)
    return method, arena, places


def test_a_state_moves_with_what_it_holds():
    method, arena, places = moved("plain")
    arena.tensor(places["w"])[1, 1] = 7.0
    assert method.w.tolist() == [[0, 1, 2], [3, 7, 5]]
    method.w.add_(1)
    check_moved(method, arena, places)
    assert moved("plain", keep=False)[0].w.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("kind", "what"), [("viewed", "is seen through several"), ("copied", "is made anew")])
def test_a_state_that_cannot_move_is_refused(kind: str, what: str):
    with pytest.raises(InputError, match=rf"^run.compute_processes: Method's state w {what}.*; allowed: 1$"):
        moved(kind)


def test_a_state_that_moved_away_is_found():
    method, arena, places = moved("plain")
    method.w = method.w + 1
    with pytest.raises(InputError, match="made anew"):
        check_moved(method, arena, places)
