from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch, Step
from algorithms.pipeline import Features
from runner.loop.pipeline_schedule import (
    counts_memory,
    first_features,
    iterate,
    later_features,
    memory_columns,
    order_of_passes,
    piece_sizes,
    restore_module,
)

STEP = Step(lr=0.1)


class Module:
    """A method that adds its rank to features, and sends ten times its rank down, plus a tenth of the pass's number."""

    def __init__(self, rank: int, locked: bool, calls: list[Any], order: str = "FB") -> None:
        self.rank, self.locked, self.calls, self.order = rank, locked, calls, order
        self.made = 0

    def pass_order(self) -> list[str]:
        return [{"F": "forward", "B": "backward"}[name] for name in self.order]

    def forward(self, stage: str, features: Features) -> Tensor:
        self.calls.append(("forward", stage, features.inputs.item()))
        return features.inputs + self.rank

    def backward(self, stage: str, delta: Tensor | None, step: Step) -> Tensor:
        assert step is STEP
        self.calls.append(("backward", stage, None if delta is None else delta.item()))
        self.made += 1
        return torch.tensor(10.0 * self.rank + (self.made - 1) / 8)

    def load_state(self, state: Any) -> None:
        self.calls.append(("state", state))

    def load_pending(self, stage: str, pending: Any) -> None:
        self.calls.append(("pending", stage, pending))


def modules(locked: bool, orders: Sequence[str] = ("FB",) * 3) -> tuple[Any, list[Any]]:
    calls: list[Any] = []
    return [Module(rank, locked, calls, order) for rank, order in enumerate(orders)], calls


def features(*inputs: float) -> list[Features]:
    return [Features(0, torch.tensor(each), torch.zeros(1), i, len(inputs)) for i, each in enumerate(inputs)]


FORWARD = [("forward", "a", 5.0), ("forward", "b", 5.0), ("forward", "c", 6.0)]


def test_locked_modules_wait_for_the_same_iteration():
    methods, calls = modules(locked=True)
    sent = iterate(methods, list("abc"), features(5.0), [torch.tensor(-1.0)] * 3, STEP)  # type: ignore[arg-type]
    assert calls == [*FORWARD, ("backward", "c", None), ("backward", "b", 20.0), ("backward", "a", 10.0)]
    assert [None if delta is None else delta.item() for delta in sent] == [0.0, 10.0, 20.0]


def test_decoupled_modules_take_the_iteration_before():
    methods, calls = modules(locked=False)
    before = [torch.tensor(-1.0), torch.tensor(-2.0), torch.tensor(-3.0)]
    iterate(methods, list("abc"), features(5.0), before, STEP)  # type: ignore[arg-type]
    assert calls == [*FORWARD, ("backward", "c", None), ("backward", "b", -3.0), ("backward", "a", -2.0)]


def test_error_gradients_of_micro_batches_come_in_their_order():
    """Decoupled modules take the one before, of the iteration before at first; locked ones those of this iteration."""
    methods, calls = modules(locked=False, orders=("FBFB", "FBFB"))
    sent = iterate(methods, list("ab"), features(1.0, 2.0), [None, torch.tensor(-3.0)], STEP)  # type: ignore[arg-type]
    assert [call[1:] for call in calls if call[0] == "backward"] == [("b", None), ("a", -3.0), ("b", None), ("a", 10.0)]
    assert sent[1] == 10.125
    methods, calls = modules(locked=True, orders=("FFBB", "FBFB"))
    iterate(methods, list("ab"), features(1.0, 2.0), [None, torch.tensor(-3.0)], STEP)  # type: ignore[arg-type]
    assert [call[1:] for call in calls if call[0] == "backward"] == [
        *[("b", None), ("b", None)],
        *[("a", 10.0), ("a", 10.125)],
    ]
    assert [call[1:] for call in calls if call[0] == "forward"] == [("a", 1.0), ("b", 1.0), ("a", 2.0), ("b", 2.0)]


def test_order_of_passes_keeps_each_modules_own():
    orders = ("FFFBFBBB", "FFBFBFBB", "FBFBFBFB")
    methods, _ = modules(locked=True, orders=orders)
    order = order_of_passes(methods)
    for rank, own in enumerate(orders):
        assert "".join(each.call[0].upper() for each in order if each.rank == rank) == own
    done: set[tuple[int, str, int]] = set()
    for rank, call, piece in order:
        needs = (rank - 1, call, piece) if call == "forward" else (rank + 1, call, piece)
        assert needs in done or not 0 <= needs[0] < 3
        done.add((rank, call, piece))


def test_decoupled_modules_need_not_wait():
    """The first module goes back with what was sent in the iteration before; the second is not that far."""
    methods, _ = modules(locked=False, orders=("FBFB", "FFBB"))
    order = [f"{call[0].upper()}{rank}{piece}" for rank, call, piece in order_of_passes(methods)]
    assert order == ["F00", "F10", "B00", "F01", "F11", "B10", "B11", "B01"]


def test_micro_batches_differ_by_a_sample_at_most():
    assert piece_sizes(10, 4) == [3, 3, 2, 2]
    assert piece_sizes(2, 4) == [1, 1, 0, 0]
    assert [len(piece) for piece in torch.arange(10).tensor_split(4)] == piece_sizes(10, 4)


def test_a_short_batch_has_fewer_micro_batches():
    """Statistics are complete when the last one with samples is there; what is saved of one names its place."""
    split = SimpleNamespace(batch=lambda ids, seed, epoch: (ids.float(), ids), targets=torch.arange(20))
    oracle: Any = SimpleNamespace(split=split, seed=0, arranged=lambda inputs: inputs)
    batch = Batch(3, 0, torch.tensor([7, 5]), size=2)
    pieces = [first_features(oracle, batch, 3, piece, 3) for piece in range(3)]
    assert [(piece.inputs.tolist(), *piece[3:]) for piece in pieces] == [
        ([7.0], 0, 2, 0.5),
        ([5.0], 1, 2, 0.5),
        ([], 2, 2, 0.0),
    ]
    later = later_features(oracle, batch, 3, torch.ones(1, 4), 1, 3)
    assert (later.targets.tolist(), *later[3:]) == ([5], 1, 2, 0.5)
    assert Features.of(later.state())[3:] == later[3:]
    assert set(Features(0, torch.ones(2), torch.ones(2)).state()) == {"number", "inputs", "targets"}


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
