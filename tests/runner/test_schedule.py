import pytest

from runner.schedule import Schedule


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


def test_one_worker_starts_at_the_full_rate():
    assert Schedule(lr=0.4, workers=1, warmup_epochs=3).at(0).lr == 0.4


def test_a_milestone_inside_the_warm_up_counts_from_the_runs_start():
    schedule = Schedule(lr=1.0, workers=2, milestones=[2], gamma=0.1, warmup_epochs=4, warmup_from="zero")
    assert schedule.at(1) == pytest.approx((0.25, 1.0))
    assert schedule.at(3) == pytest.approx((0.075, 0.1))
