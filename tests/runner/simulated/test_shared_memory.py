"""Schedules of workers on shared memory, worked out by hand; what all executors have in common is in `test_methods`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.base import Batch, Cost
from algorithms.shared_memory import SharedMemory
from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.schedule import Schedule
from runner.loop.train_control import TrainControl
from runner.run_folder import checkpoint
from runner.run_folder.timeline import Timeline
from runner.simulated.memory_worker import PIECES
from runner.simulated.shared_memory import SimulatedMemory
from tests.trial import Trial, equal, train


class Counting(SharedMemory):
    """Every update adds 1 to what it writes: weights then count the updates, and reads show which they have seen.

    Args:
        chosen: coordinates that updates write, by batch; all where a batch has none.
        every: batches between two barriers.
    """

    barrier_cost = Cost(1.0)

    def __init__(self, chosen: dict[int, list[int]], every: int | None = None) -> None:
        self.chosen = chosen
        self.barrier_every = every
        self.reads: list[tuple[int, list[int]]] = []
        self.snapshots: list[list[int]] = []
        self.asked = 0

    def direction(self, oracle: Any, read: Tensor, batch: Batch) -> Tensor:
        self.reads.append((batch.number, read.int().tolist()))
        self.batch = batch.number
        return torch.full_like(read, -1.0)

    def coordinates(self, n: int, generator: np.random.Generator) -> Tensor | None:
        own = self.chosen.get(self.asked)
        self.asked += 1
        return None if own is None else torch.tensor(own)

    def snapshot(self, gradient: Tensor) -> None:
        assert gradient.tolist() == self.w.tolist()
        self.snapshots.append(self.w.int().tolist())


class Memory:
    """Eight weights, and a full gradient that is the weights themselves."""

    streams = False

    def __init__(self) -> None:
        self.replica = self
        self.weights, self.statistics = torch.zeros(PIECES), torch.empty(0)
        self.totals = torch.zeros(3, dtype=torch.float64)

    def initial_statistics(self) -> Tensor:
        return torch.empty(0)

    def gradient_sum(self, w: Tensor, shard: Batch) -> Tensor:
        return w * len(shard.ids)


def run(method: Counting, folder: Path, *, speeds: list[float], seconds: float, bandwidth: float | None, total: int):
    """Run `total` batches of one sample each; `bandwidth` 4 bytes a second moves one weight a second."""
    compute, network = (
        ComputeConfig(distribution="constant", seconds=seconds, speeds=speeds),
        NetworkConfig(bandwidth=bandwidth),
    )
    workers, timeline = len(speeds), Timeline(len(speeds))
    schedule = Schedule(workers=workers, epochs=9, batch=1, kind="constant", lr=1.0)
    control = TrainControl(samples=8, epochs=9, eval_every=1e9, checkpoint_every=1e9, schedule=schedule, folder=folder)
    control.due = lambda finished=False: False
    executor = SimulatedMemory(
        method,
        workers=workers,
        oracle=Memory(),  # type: ignore[arg-type]
        batches=Batches(samples=8, size=1, seed=0, epochs=9, total=total),
        clock=Clock(compute, StragglersConfig(), network, workers=workers, seed=0),
        control=control,
        timeline=timeline,
        seed=0,
    )
    executor.run()
    return control, timeline.report(1.0)["staleness"]


def test_reads_see_earlier_writes_by_piece(tmp_path: Path):
    # Worker 0 reads from 0 to 8 s, computes to 12 s, writes piece j at 13 + j, and reads again: piece j at 20 + j.
    # Worker 1 computes from 8 to 22 s and writes four weights in four seconds: piece j at 22.5 + j/2. So worker 0's
    # second read sees its own first update everywhere, and of worker 1's only what lies beyond 5.
    method = Counting({1: [0, 3, 6, 7]})
    control, _ = run(method, tmp_path, speeds=[1.0, 4 / 14], seconds=4.0, bandwidth=4.0, total=3)
    assert method.reads == [(0, [0] * 8), (1, [0] * 8), (2, [1, 1, 1, 1, 1, 1, 2, 2])]
    assert method.w.tolist() == [3, 2, 2, 3, 2, 2, 3, 3]
    # 28 s: its second read is over; 4 s of computing and 8 of writing.
    assert control.seconds == 40
    assert control.updates == 3


def test_ties_go_to_the_smaller_worker(tmp_path: Path):
    method = Counting({})
    control, staleness = run(method, tmp_path, speeds=[1.0, 1.0], seconds=4.0, bandwidth=None, total=4)
    # Worker 0 has written and read again when worker 1 writes.
    assert method.reads == [(0, [0] * 8), (1, [0] * 8), (2, [1] * 8), (3, [2] * 8)]
    assert control.seconds == 8
    assert staleness == {"0": 1, "1": 3}


def test_interleaved_writes_are_never_lost(tmp_path: Path):
    method = Counting({})
    run(method, tmp_path, speeds=[1.0, 1.1, 0.9], seconds=4.0, bandwidth=4.0, total=30)
    assert method.w.tolist() == [30] * 8


class Borrowed(Counting):
    """Adds 2^number to every weight; the direction is one vector, which the next call overwrites, as gradients are."""

    v = torch.empty(PIECES)

    def direction(self, oracle: Any, read: Tensor, batch: Batch) -> Tensor:
        return self.v.fill_(-(2.0**batch.number))


def test_directions_outlast_the_next(tmp_path: Path):
    method = Borrowed({})
    run(method, tmp_path, speeds=[1.0, 1.1, 0.9], seconds=4.0, bandwidth=4.0, total=20)
    assert method.w.tolist() == [2**20 - 1] * 8


def test_barriers_wait_for_the_slowest(tmp_path: Path):
    # Two updates to a barrier. Both compute from 0, worker 1 to 8 s; shards of 4 samples then take 16 and 32 s.
    method = Counting({}, every=2)
    control, _ = run(method, tmp_path, speeds=[1.0, 0.5], seconds=4.0, bandwidth=None, total=4)
    assert method.snapshots == [[2] * 8], "the run's end is none"
    assert [read for read in method.reads if read[0] >= 2] == [(2, [2] * 8), (3, [2] * 8)]
    assert control.seconds == 8 + 32 + 8
    assert control.samples_seen == 4 + 8


def test_coordinates_depend_on_batch_alone(tmp_path: Path):
    few = ("algorithm=hogwild", "algorithm.coordinates=50", "model=mlp", "dataset.limit_train=64", "run.epochs=1")
    one = train(*few, "cluster.workers=1", "schedule.lr=1e-3", folder=tmp_path).executor.weights()
    two = train(*few, "cluster.workers=2", "schedule.lr=1e-3", folder=tmp_path).executor.weights()
    start = train(*few, "cluster.workers=1", "schedule.lr=1e-30", folder=tmp_path).executor.weights()
    assert torch.equal(one != start, two != start)


@pytest.mark.parametrize("stop_after", [1, 6, 12])
@pytest.mark.parametrize("name", ["hogwild", "shared_asysvrg"])
def test_resume_within_writes_gives_same_bits(name: str, stop_after: int, tmp_path: Path):
    overrides = [f"algorithm={name}", "model=mlp", "dataset.limit_train=104", "run.batch_size=8", "run.epochs=4"]
    overrides += ["cluster.network.bandwidth=3e4", "cluster.compute.distribution=gamma", "algorithm.coordinates=900"]
    overrides += ["run.checkpoint_every=100", *(["algorithm.inner=7"] if name != "hogwild" else [])]
    expected = train(*overrides, folder=tmp_path)
    stopped = Trial(*overrides, folder=tmp_path, stop_after=stop_after)
    state = stopped.stopped()
    assert any(hand["writing"] for hand in state["executor"]["hands"])
    checkpoint.save(tmp_path, stop_after, state, keep=1)
    found = checkpoint.newest_intact(tmp_path)
    assert found is not None
    continued = Trial(*overrides, folder=tmp_path).resume(found[0]).run()
    assert continued.sha256 == expected.sha256
    assert equal(continued.state, expected.state)
    assert stopped.notes.rows + continued.notes.rows == expected.notes.rows
