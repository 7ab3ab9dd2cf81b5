"""Workers that step together on the clock, by hand."""

from typing import Any

import numpy as np
import pytest

from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.loop.clock import Clock
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.collective_clock import CollectiveClock


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
