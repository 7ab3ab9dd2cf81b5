"""Workers that step together on the clock, by hand."""

from typing import Any

import numpy as np
import pytest

from algorithms.d_psgd import DPSGD
from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.loop.clock import Clock
from runner.loop.mixing import Mixing
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.collective_clock import CollectiveClock, GroupsClock


def clock(combine: str = "mean", **network: Any) -> CollectiveClock:
    """Three workers, of which the second takes 2 s for a step and the others 1 s."""
    compute = ComputeConfig("constant", speeds=[1.0, 0.5, 1.0])
    times = Clock(compute, StragglersConfig(), NetworkConfig(**network), workers=3, seed=0)
    return CollectiveClock(times, TimelineTotals(3), combine=combine, nbytes=300, gradients=1.0)


def test_late_combination_is_waited_for():
    times = clock(latency=0.5, allreduce="linear")
    times.compute(0, np.ones(3))
    begin, arrival = times.send(0.0)
    assert (begin, arrival) == (2.0, 2.5)
    # The first worker is a step further when it arrives, the last one has begun nothing.
    times.now = np.array([2.2, 2.0, 1.0])
    times.receive(begin, arrival)
    assert times.now.tolist() == [2.5, 2.5, 2.5]
    assert times.communication.columns() == {"communication_seconds": 0.5, "hidden_seconds": pytest.approx(0.2 / 3)}
    # The first computes 1 s and then transfers 0.3 s, the last waits from 1 s to 2 s.
    report = times.timeline.report(2.5)["workers"]
    assert [row["transferring"] for row in report] == pytest.approx([0.3 / 2.5, 0.5 / 2.5, 0.5 / 2.5])
    assert [row["waiting"] for row in report] == pytest.approx([0.0, 0.0, 1.0 / 2.5])


def test_combination_waits_for_the_one_before_it():
    times = clock(latency=3.0, allreduce="linear")
    times.compute(0, np.ones(3))
    _, first = times.send(0.0)
    times.compute(1, np.ones(3))
    assert times.send(first) == (5.0, 8.0)


@pytest.mark.parametrize(
    ("combine", "allreduce", "nbytes"),
    [
        ("mean", "ring", 2 * 2 * 300),
        ("gather", "ring", 3 * 2 * 300),
        ("mean", "linear", 900),
        ("gather", "linear", 900),
    ],
)
def test_bytes_are_what_all_workers_send(combine: str, allreduce: str, nbytes: int):
    times = clock(combine, allreduce=allreduce)
    times.send(0.0)
    times.send(0.0)
    assert times.nbytes == 2 * nbytes


def ring(latency: float) -> GroupsClock:
    """Four workers on a ring, whose steps take 4, 2, 1 and 1 s; a worker gets two messages."""
    compute = ComputeConfig("constant", seconds=4.0, speeds=[1.0, 2.0, 4.0, 4.0])
    times = Clock(compute, StragglersConfig(), NetworkConfig(latency=latency), workers=4, seed=0)
    return GroupsClock(times, TimelineTotals(4), Mixing(DPSGD(), 4), nbytes=100, gradients=1.0)


def test_a_worker_waits_for_its_neighbours_alone():
    """The step first: worker 2 does not wait for worker 0, which is not its neighbour, but for those who did."""
    times, seen = ring(latency=0.5), []
    for step in range(2):
        times.compute(step, np.ones(4))
        times.receive(*times.send(0.0))
        seen.append(times.now.tolist())
    # Done at 4, 2, 1, 1, then at 9, 7, 4, 6; a worker has its slowest neighbour's a second later.
    assert seen == [[5.0, 5.0, 3.0, 5.0], [10.0, 10.0, 8.0, 10.0]]
    assert times.communication.columns() == {"communication_seconds": 2.0, "hidden_seconds": 0.0}
    report = times.timeline.report(10.0)["workers"]
    # Worker 2 waits from 1 to 2 and from 4 to 7, worker 0 for nobody.
    assert [row["waiting"] for row in report] == pytest.approx([0.0, 0.4, 0.4, 0.6])
    assert [row["transferring"] for row in report] == pytest.approx([0.2] * 4)
    assert times.nbytes == 2 * 4 * 2 * 100


def test_weights_travel_beside_the_gradient():
    """The average first: what was there before a step is sent as it begins."""
    times, seen = ring(latency=0.5), []
    for step in range(3):
        sent = times.send(0.0)
        times.compute(step, np.ones(4))
        times.receive(*sent)
        seen.append(times.now.tolist())
    # A worker's next step begins when its own gradient is done, and a second after its slowest neighbour began.
    assert seen == [[4.0, 2.0, 1.0, 1.0], [8.0, 5.0, 3.0, 5.0], [12.0, 9.0, 6.0, 9.0]]
    # All hide the first second; then worker 0 hides one, and in the third step worker 0 again, worker 2 none.
    assert times.communication.columns()["hidden_seconds"] == pytest.approx((4 + 1 + 1) / 4)


def test_a_groups_combination_waits_for_the_one_before_it():
    times = ring(latency=2.0)
    times.compute(0, np.ones(4))
    _, first = times.send(0.0)
    assert first.tolist() == [8.0, 8.0, 6.0, 8.0]
    begin, arrival = times.send(first)
    assert (begin.tolist(), arrival.tolist()) == ([8.0, 8.0, 6.0, 8.0], [12.0, 12.0, 10.0, 12.0])
