"""A shared memory on the clock, by hand."""

import pytest

from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.loop.clock import Clock
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.memory_clock import MemoryClock


def clock() -> MemoryClock:
    """Two workers, the second twice as slow, and a vector that takes 0.4 s to read."""
    compute = ComputeConfig("constant", speeds=[1.0, 0.5])
    times = Clock(compute, StragglersConfig(), NetworkConfig(bandwidth=1000.0), workers=2, seed=0)
    return MemoryClock(times, TimelineTotals(2), elements=100)


def test_task_reads_computes_and_writes():
    times = clock()
    end = times.compute(1, 3.0, 0.5, 2.0)
    assert end == 3.0 + 0.4 + 2.0
    assert times.write_seconds(50) == 0.2
    times.written(1, end, end + 0.2, 50)
    assert times.nbytes == 400 + 200
    assert times.tasks == [0, 1]
    row = times.timeline.report(10.0)["workers"][1]
    assert row["gradients"] == 1
    assert [row["utilization"], row["transferring"]] == pytest.approx([0.2, 0.06])


def test_snapshot_waits_for_the_slowest():
    times = clock()
    assert times.snapshot({0: 1.0, 1: 4.0}, [3.0, 2.0], 1.0) == 4.0 + 4.0
    assert times.tasks == [1, 1]
    rows = times.timeline.report(8.0)["workers"]
    assert [row["utilization"] for row in rows] == [3.0 / 8, 4.0 / 8]
    # The first waits from 1 s to 4 s for the other to come, and from 7 s to 8 s for it to be done.
    assert [row["waiting"] for row in rows] == [4.0 / 8, 0.0]
