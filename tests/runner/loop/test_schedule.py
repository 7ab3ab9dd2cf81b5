from typing import Any

import pytest

from runner.loop.schedule import Schedule


def test_a_constant_rate_stays():
    schedule = Schedule(lr=0.3, workers=4)
    assert [schedule.at(epoch) for epoch in (0, 0.5, 1000)] == [(0.3, 1.0)] * 3


def test_milestones_multiply_from_their_epoch_on():
    schedule = Schedule(lr=0.5, workers=4, milestones=[80, 120], gamma=0.1)
    for epoch, lr, decay in ((0, 0.5, 1), (79.99, 0.5, 1), (80, 0.05, 0.1), (119, 0.05, 0.1), (120, 0.005, 0.01)):
        assert schedule.at(epoch) == pytest.approx((lr, decay))


def test_milestones_need_no_order():
    assert Schedule(lr=1, workers=1, milestones=[3, 1], gamma=0.5).at(2) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("start", "expected"), [("lr_over_workers", [0.1, 0.2, 0.3, 0.4]), ("zero", [0.0, 0.4 / 3, 0.8 / 3, 0.4])]
)
def test_warm_up_is_linear(start: str, expected: list[float]):
    schedule = Schedule(lr=0.4, workers=4, warmup_epochs=3, warmup_from=start)
    assert [schedule.at(epoch).lr for epoch in (0, 1, 2, 3)] == pytest.approx(expected)
    assert schedule.at(50).lr == 0.4
    assert [schedule.at(epoch).decay for epoch in (0, 1, 2, 3)] == [1.0] * 4, "decay does not see the warm-up"


def test_one_worker_warms_up_too():
    schedule = Schedule(lr=0.3, workers=1, warmup_epochs=3)
    assert [schedule.at(epoch).lr for epoch in (0, 1, 2, 3)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert Schedule(lr=0.3, workers=1).at(0).lr == 0.3


def test_milestones_count_from_start_in_warm_up():
    schedule = Schedule(lr=1.0, workers=2, milestones=[2], gamma=0.1, warmup_epochs=4, warmup_from="zero")
    assert schedule.at(1) == pytest.approx((0.25, 1.0))
    assert schedule.at(3) == pytest.approx((0.075, 0.1))


def test_one_cycle_is_piecewise_linear():
    """DaSGD's: 1e-4 to 1e-2 over the first 30 % of 50 epochs, then back."""
    schedule = Schedule(kind="one_cycle", lr=1e-2, lr_start=1e-4, lr_end=1e-4, rise=0.3, workers=32, epochs=50)
    rates = {0: 1e-4, 7.5: (1e-4 + 1e-2) / 2, 15: 1e-2, 32.5: (1e-4 + 1e-2) / 2, 50: 1e-4, 51: 1e-4}
    for epoch, lr in rates.items():
        assert schedule.at(epoch).lr == pytest.approx(lr), epoch
    # λ schedules see the fall, not the rise.
    assert [schedule.at(epoch).decay for epoch in (0, 7.5, 15, 50)] == pytest.approx([1, 1, 1, 0.01])


@pytest.mark.parametrize(("power", "half"), [(1.0, 0.5), (2.0, 0.25)])
def test_polynomial_decays_with_its_power(power: float, half: float):
    schedule = Schedule(kind="polynomial", lr=2.0, lr_end=0.0, power=power, workers=4, epochs=20)
    assert schedule.at(0) == (2.0, 1.0)
    assert schedule.at(10) == pytest.approx((2.0 * half, half))
    assert schedule.at(20).lr == 0.0
    assert schedule.at(20).decay > 0, "methods divide by it"
    ending = Schedule(kind="polynomial", lr=2.0, lr_end=1.0, power=power, workers=4, epochs=20)
    assert [ending.at(epoch).lr for epoch in (10, 20)] == pytest.approx([1 + half, 1.0])


def test_inverse_falls_from_pass_to_pass():
    schedule = Schedule(kind="inverse", lr=0.6, power=0.5, workers=4, epochs=20)
    for epoch, factor in ((0, 1), (0.999, 1), (1, 0.5**0.5), (3, 0.5), (8.5, 1 / 3)):
        assert schedule.at(epoch) == pytest.approx((0.6 * factor, factor))
    # A pass of many batches may end a rounding error too early.
    assert schedule.at(3 - 1e-12).lr == pytest.approx(0.3)
    assert Schedule(kind="inverse", lr=0.6, power=0.0, workers=4, epochs=20).at(7) == (0.6, 1.0)


@pytest.mark.parametrize("kind", ["one_cycle", "polynomial"])
def test_they_span_what_the_warm_up_leaves(kind: str):
    shape: dict[str, Any] = {
        "one_cycle": {"lr_start": 0.1, "lr_end": 0.1, "rise": 0.3},
        "polynomial": {"lr_end": 0.0, "power": 2.0},
    }
    plain = Schedule(kind=kind, lr=1.0, workers=4, epochs=20, **shape[kind])
    warmed = Schedule(kind=kind, lr=1.0, workers=4, epochs=25, warmup_epochs=5, **shape[kind])
    for epoch in (0, 3, 6, 12, 20):
        assert warmed.at(5 + epoch) == pytest.approx(plain.at(epoch))
    # The warm-up leads from a quarter to what the schedule begins with.
    begin = plain.at(0).lr
    assert [warmed.at(epoch).lr for epoch in (0, 2.5)] == pytest.approx([begin / 4, begin * 5 / 8])


def test_linear_scaling_multiplies_every_rate():
    options: dict[str, Any] = {"kind": "polynomial", "lr": 0.1, "lr_end": 0.01, "power": 2, "workers": 1, "epochs": 20}
    plain, scaled = Schedule(**options, batch=1024), Schedule(**options, batch=1024, base_batch=128)
    for epoch in (0, 7, 20):
        assert scaled.at(epoch).lr == pytest.approx(8 * plain.at(epoch).lr)
        assert scaled.at(epoch).decay == plain.at(epoch).decay


@pytest.mark.parametrize(
    ("options", "corners"),
    [
        ({"kind": "constant"}, [0, 20]),
        ({"kind": "constant", "warmup_epochs": 5}, [0, 5, 20]),
        ({"kind": "constant", "warmup_epochs": 50}, [0, 20]),
        ({"kind": "multistep", "milestones": [8, 12, 30]}, [0, 8, 12, 20]),
        ({"kind": "one_cycle", "lr_start": 0, "lr_end": 0, "rise": 0.2, "warmup_epochs": 10}, [0, 10, 12, 20]),
        ({"kind": "polynomial", "lr_end": 0, "power": 1}, [0, 20]),
        ({"kind": "inverse", "power": 1}, list(range(21))),
    ],
)
def test_corners_are_where_the_rate_bends(options: dict, corners: list[float]):
    assert Schedule(lr=1.0, workers=2, epochs=20, **options).corners() == corners
