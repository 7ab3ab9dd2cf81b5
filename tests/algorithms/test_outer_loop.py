"""When SGD's passes end and snapshots begin, by hand: ten samples in batches of four are three updates a pass."""

import pytest

from algorithms.outer_loop import OuterLoop


def planned(sgd_epochs: float) -> OuterLoop:
    loop = OuterLoop(inner=5, sgd_epochs=sgd_epochs, sgd_lr=0.8, sgd_decay=1.0)
    loop.plan(10, 4)
    return loop


@pytest.mark.parametrize(("sgd_epochs", "updates"), [(0.0, 0), (0.4, 1), (0.5, 2), (1.0, 3), (1.5, 5), (2.0, 6)])
def test_first_snapshot_follows_whole_batches(sgd_epochs: float, updates: int):
    loop = planned(sgd_epochs)
    assert (loop.barrier_from, loop.barrier_every) == (updates, 5)
    assert [loop.is_sgd(number) for number in range(8)] == [number < updates for number in range(8)]
    assert [loop.evaluations(number) for number in range(8)] == [1.0] * updates + [2.0] * (8 - updates)


def test_rate_falls_pass_by_pass():
    assert [planned(2.0).sgd_rate(update) for update in (0, 2, 3, 5, 6)] == [0.8, 0.8, 0.4, 0.4, 0.8 / 3]
    constant = OuterLoop(inner=1, sgd_epochs=1.0, sgd_lr=0.8, sgd_decay=0.0)
    constant.plan(10, 4)
    assert constant.sgd_rate(29) == 0.8


@pytest.mark.parametrize(
    ("key", "value"),
    [("inner", 0), ("inner", 1.5), ("sgd_epochs", -0.1), ("sgd_lr", -1.0), ("sgd_decay", float("nan"))],
)
def test_options_out_of_range(key: str, value: float):
    given = {"inner": 5, "sgd_epochs": 1.0, "sgd_lr": 0.8, "sgd_decay": 1.0, key: value}
    with pytest.raises(ValueError, match=rf"^algorithm\.{key}={value}: .*allowed: "):
        OuterLoop(**given)  # type: ignore[arg-type]
