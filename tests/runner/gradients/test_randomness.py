"""What is drawn from torch's own generators depends on the seed and the name of a stream, and on nothing before."""

from typing import Any

import pytest
import torch

from runner.gradients.randomness import DrawWatch, piece_name, seed_generators, seeded

CPU = torch.device("cpu")


def drawn(seed: int, *stream: int | str) -> torch.Tensor:
    with seeded(CPU, seed, *stream):
        return torch.rand(3)


def test_draws_depend_on_seed_and_stream():
    torch.manual_seed(1)
    first = drawn(3, "dropout", 5)
    torch.manual_seed(2)
    assert torch.equal(drawn(3, "dropout", 5), first)
    assert not torch.equal(drawn(4, "dropout", 5), first)
    assert not torch.equal(drawn(3, "dropout", 6), first)


def test_the_generator_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(RuntimeError), seeded(CPU, 0, "x"):
        torch.rand(-1)
    with seeded(CPU, 0, "x"):
        torch.rand(2)
    assert torch.equal(torch.rand(3), expected)


def test_pieces_are_named_by_their_samples():
    ids = torch.tensor([7, 3, 9, 4])
    assert piece_name(ids, 0, None) == piece_name(ids, 0, 4) == ()
    assert piece_name(ids, 2, 4) == (2,)
    assert piece_name(ids[:2], 0, 4) == (7, 3)
    assert piece_name(ids[2:], 2, 4) == (2, 9, 4)


def test_a_watch_sees_every_draw():
    watch = DrawWatch(CPU)
    torch.randn(2, generator=torch.Generator())
    assert not watch.drawn()
    torch.nn.functional.dropout(torch.ones(2), 0.5)
    assert watch.drawn()


def test_every_call_of_a_method_has_a_seed_of_its_own():
    def drawn(seed: int, call: str, *numbers: int) -> tuple[float, ...]:
        torch.manual_seed(7)
        seed_generators(CPU, seed, call, *numbers)
        return tuple(torch.rand(2).tolist())

    calls: list[Any] = [(0, "push", number) for number in range(-200, 200)] + [
        (0, "push", 1, rank) for rank in range(200)
    ]
    calls += [(1, "push", 3), (0, "pull", 3), (0, "push", 3, 1), (0, "push")]
    assert len({drawn(*call) for call in calls}) == len(set(calls))
    assert drawn(0, "push", 3) == drawn(0, "push", 3)
