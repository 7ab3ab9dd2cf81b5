"""Barriers on a parameter server: when they come, what they cost, and that nobody is missing afterwards."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from injection import Host, host

from algorithms.asgd import ASGD
from runner.config.errors import InputError
from runner.loop import barrier
from runner.train import build, estimate
from tests.trial import QuadraticOracle, Trial, compose, equal, run_in

QUADRATIC = (
    "algorithm=asysvrg",
    "algorithm.weight_decay=0",
    "model=linear",
    "dataset.limit_train=8",
    "run.batch_size=1",
    "schedule.lr=0.5",
    "cluster.compute.distribution=constant",
    "cluster.workers=3",
    "cluster.compute.seconds=4",
    "cluster.compute.speeds=[4,2,1]",
)
"""Gradients take 1, 2 and 4 virtual seconds; shards have 3, 3 and 2 samples."""

# Worked out with pencil and paper, f(w) = w²/2, where v is what was pulled. A batch takes two gradients, so 2, 4 and 8
# seconds, a shard 3, 6 and 8. The first barrier lasts from 0 to 8. All pull; with m = 4 one batch is left for worker 0,
# at 10. The slowest push comes at 16; the barrier lasts until 24, and all is repeated from there.
PUSHES = [
    (0, 10.0, 0),
    (0, 12.0, 0),
    (1, 12.0, 2),
    (2, 16.0, 3),
    (0, 26.0, 0),
    (0, 28.0, 0),
    (1, 28.0, 2),
    (2, 32.0, 3),
]
"""Worker, second and staleness of every push."""
WEIGHTS = [32.0, 16.0, -16.0, -48.0, -24.0, -12.0, 12.0, 36.0]
"""w after each push: half of what was pulled is subtracted: 64, 32, 64, 64, then -48, -24, -48, -48."""


def played(*overrides: str, folder: Path) -> tuple[Trial, list[tuple[int, float, int]], list[float]]:
    trial = Trial(*QUADRATIC, *overrides, folder=folder, oracle=QuadraticOracle(64.0))
    pushes, weights = [], []
    executor: Any = trial.executor
    original = executor.server.push

    def push(worker: int, message: Any, step: Any) -> None:
        original(worker, message, step)
        pushes.append((worker, executor.events.free, step.staleness))
        weights.append(float(executor.server.w))

    executor.server.push = push
    return trial.run(), pushes, weights


def test_three_workers_worked_out_by_hand(tmp_path: Path):
    trial, pushes, weights = played("algorithm.inner=4", "run.epochs=4", folder=tmp_path)
    assert pushes == PUSHES
    assert weights == WEIGHTS
    assert trial.control.epoch == 4
    assert trial.control.seconds == 32
    assert [row["epoch"] for row in trial.notes.rows] == [1, 2, 3, 4], "a barrier's passes are counted when it is over"
    assert [row["seconds"] for row in trial.notes.rows] == [8, 16, 24, 32]
    report = trial.executor.timeline.report(32.0)
    assert [worker["gradients"] for worker in report["workers"]] == [6, 4, 4]
    assert [worker["utilization"] for worker in report["workers"]] == [14 / 32, 20 / 32, 1.0]
    assert [worker["waiting"] for worker in report["workers"]] == [14 / 32, 8 / 32, 0.0]


def test_messages_of_a_barrier_take_their_time(tmp_path: Path):
    """Four bytes at 8 a second with a latency of 1: 1.5 seconds down, up and down again around the slowest shard."""
    network = ("cluster.network.latency=1", "cluster.network.bandwidth=8")
    trial, pushes, _ = played("algorithm.inner=4", "run.epochs=1.25", *network, folder=tmp_path)
    assert trial.control.updates == 1
    # Requests 1, then 1.5 + 8 + 1.5 + 1.5; a pull of 1.5, two gradients, a push of 1.5.
    assert pushes == [(0, 1 + 12.5 + 1.5 + 2 + 1.5, 0)]
    spans = [json.loads(line) for line in (tmp_path / "timeline.jsonl").read_text().splitlines()]
    slowest = [(line["what"], line["start"], line["end"]) for line in spans if line["worker"] == 2]
    expected = [("wait", 0, 1), ("transfer", 1, 2.5), ("compute", 2.5, 10.5), ("transfer", 10.5, 12)]
    assert slowest[:6] == [*expected, ("wait", 12, 12), ("transfer", 12, 13.5)]


def test_answers_are_handled_as_they_arrive(tmp_path: Path):
    """The first worker is the slowest: its answer is handled last, each for a second."""
    given = ("cluster.compute.speeds=[1,2,4]", "cluster.network.server_seconds=1", "run.epochs=1.25")
    _, pushes, _ = played("algorithm.inner=4", *given, folder=tmp_path)
    # Three requests until 3; answers come at 5, 9 and 15, so the barrier is over at 16; then two gradients of 4.
    assert pushes == [(0, 16 + 8 + 1, 0)]


def test_plain_sgd_precedes_first_barrier(tmp_path: Path):
    given = ("algorithm.inner=4", "algorithm.sgd_epochs=0.5", "algorithm.sgd_lr=1", "algorithm.sgd_decay=1")
    trial, pushes, weights = played(*given, "run.epochs=2", folder=tmp_path)
    # One gradient a sample and 1, 2, 4 seconds until the barrier after four pushes; two and 2, 4, 8 from 8 + 4 on.
    assert pushes[:4] == [(0, 1.0, 0), (0, 2.0, 0), (1, 2.0, 2), (2, 4.0, 3)]
    assert weights[:4] == [0.0, 0.0, -64.0, -128.0]
    assert pushes[4] == (0, 4 + 8 + 2, 0)
    assert trial.control.updates == 6
    assert trial.control.epoch == 2


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
def test_resume_at_barriers_gives_same_bits(stop_after: int, tmp_path: Path):
    def trial(folder: str, **more: Any) -> Trial:
        (tmp_path / folder).mkdir()
        given = (*QUADRATIC, "algorithm.inner=4", "run.epochs=4", "run.eval_every=4")
        return Trial(*given, folder=tmp_path / folder, oracle=QuadraticOracle(64.0), **more)

    expected = trial("whole").run()
    state = trial("stopped", stop_after=stop_after).stopped()
    continued = trial("resumed").resume(state).run()
    assert equal(continued.state, expected.state)
    assert continued.control.seconds == expected.control.seconds
    assert continued.notes.rows == expected.notes.rows


def test_resumed_halves_have_their_snapshot(tmp_path: Path):
    """On a network: of w²/2, whose gradient is w, a snapshot cancels out whatever it is."""

    def trial(folder: str, **more: Any) -> Trial:
        (tmp_path / folder).mkdir()
        return Trial(*QUADRATIC, "algorithm.inner=4", "run.epochs=4", folder=tmp_path / folder, **more)

    expected = trial("whole").run()
    continued = trial("resumed").resume(trial("stopped", stop_after=2).stopped()).run()
    assert continued.sha256 == expected.sha256


class BarrierASGD(ASGD):
    """ASGD whose workers only meet."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.barrier_every = every


@settings(max_examples=50, deadline=None)
@given(
    samples=st.integers(1, 40),
    size=st.integers(1, 9),
    epochs=st.floats(0.05, 6),
    inner=st.integers(1, 30),
    first=st.floats(0, 3),
)
def test_runs_end_after_their_effective_passes(samples: int, size: int, epochs: float, inner: int, first: float):
    from algorithms.asysvrg import AsySVRG

    method = AsySVRG(inner=inner, sgd_epochs=first)
    method.plan(samples, size)
    count = barrier.count_pushes(method, samples=samples, size=size, epochs=epochs)
    assert count is not None

    def spent(pushes: int) -> float:
        total, due = 0.0, method.barrier_from
        for number in range(pushes):
            if number == due:
                total, due = total + samples, due + inner
            position = number % -(-samples // size)
            total += min(size, samples - position * size) * (1 if number < method.barrier_from else 2)
        return total

    assert spent(count) >= epochs * samples - 1e-5
    assert count == 1 or spent(count - 1) < epochs * samples


def test_barriers_without_rounds_are_free(tmp_path: Path):
    assert barrier.count_pushes(BarrierASGD(3), samples=8, size=2, epochs=3) is None
    assert [barrier.next_barrier(BarrierASGD(3), updates) for updates in (-1, 2, 3, 5, 6)] == [3, 3, 6, 6, 9]
    later = BarrierASGD(3)
    later.barrier_from = 4
    assert [barrier.next_barrier(later, updates) for updates in (-1, 3, 4, 6, 7)] == [4, 4, 7, 7, 10]
    assert barrier.next_barrier(ASGD(), 0) is None
    assert [barrier.count_barriers(BarrierASGD(3), updates) for updates in (1, 3, 4, 6, 7)] == [0, 0, 1, 1, 2]
    trial = Trial(
        *QUADRATIC[2:],
        "algorithm=asgd",
        "algorithm.weight_decay=0",
        "run.epochs=1",
        folder=tmp_path,
        oracle=QuadraticOracle(64.0),
    )
    executor: Any = trial.executor
    executor.server.barrier_every = 3
    executor.leases.quota = 3
    staleness: list[int] = []
    executor.timeline.staleness = lambda worker, value: staleness.append(value)
    trial.run()
    # Each worker pulls once before each barrier: seconds 1, 2, 4; then 5, 6, 8; then two are left.
    assert staleness == [0, 1, 2, 0, 1, 2, 0, 1]
    assert trial.control.seconds == 10


def test_a_barrier_after_every_push(tmp_path: Path):
    given = ("algorithm=asgd", "algorithm.weight_decay=0", "run.epochs=1")
    trial = Trial(*QUADRATIC[2:], *given, folder=tmp_path, oracle=QuadraticOracle(64.0))
    executor: Any = trial.executor
    executor.server.barrier_every = 1
    executor.leases.quota = 1
    staleness: list[int] = []
    executor.timeline.staleness = lambda worker, value: staleness.append(value)
    trial.run()
    assert staleness == [0] * 8


def test_shards_are_contiguous_and_even():
    batches = build.build_run(
        compose("algorithm=asgd", "model=linear", "dataset.limit_train=23", "run.batch_size=5")
    ).batches
    shards = [batches.shard(worker, 4, next_batch=0) for worker in range(4)]
    assert [len(shard.ids) for shard in shards] == [6, 6, 6, 5]
    assert torch.equal(torch.cat([shard.ids for shard in shards]), torch.arange(23))
    assert len({shard.number for shard in shards}) == 4


def test_answers_are_added_up_in_their_order():
    parts = [{"g": torch.tensor([value])} for value in (1e8, 1.0, -1e8)]
    assert barrier.sum_messages(parts)["g"] == (torch.tensor([1e8]) + 1.0) - 1e8
    assert parts[0]["g"] == 1e8, "what was answered is not changed"


def test_batch_norm_is_refused_for_snapshots():
    with pytest.raises(InputError, match=r"model=resnet8: has batch norm.* allowed: mlp"):
        build.build_run(compose("algorithm=asysvrg", "model=resnet8", "dataset.limit_train=160"))


def test_an_estimate_counts_the_full_gradients(capsys: pytest.CaptureFixture[str]):
    given = ("algorithm=asysvrg", "algorithm.inner=10", "model=mlp", "dataset.limit_train=160", "run.batch_size=16")
    assert estimate.show(build.build_run(compose(*given, "run.epochs=6"))) == 0
    # Ten pushes are two passes; three times 1 + 2 passes with a full gradient before each are nine: two times are six.
    assert re.search(r"barriers\D+2, 2 passes", capsys.readouterr().out)


PROCESSES = ("cluster=processes", "cluster.timeout=20", "algorithm=asysvrg", "model=mlp", "schedule.lr=0.05")
DATA = ("dataset=synthetic", "dataset.train=480", "dataset.test=50", "run.batch_size=16", "algorithm.inner=10")


def test_one_worker_process_equals_simulation(tmp_path: Path):
    same = ("algorithm=svrg", "model=mlp", *DATA, "run.epochs=5", "algorithm.sgd_epochs=0.5")
    real = run_in(tmp_path / "real", *PROCESSES[:2], *same)[1]
    simulated = run_in(tmp_path / "simulated", *same)[1]
    for key in ("weights_sha256", "updates", "samples", "epochs", "final_test_error", "final_train_loss"):
        assert real[key] == simulated[key], key


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("host")) as made:
        yield made


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc (Linux)")


@pytest.mark.slow
@needs_proc
def test_replay_after_loss_in_barrier(machine: Host, tmp_path: Path):
    """Three shards of 160 samples at 0.02 seconds a sample: the first barrier lasts three seconds and more."""
    slow = ("cluster.compute.seconds=0.32", "cluster.compute.distribution=constant")
    run = machine.start(tmp_path / "run", *PROCESSES, *DATA, *slow, "run.epochs=1.5", "cluster.workers=3").training()
    time.sleep(1.0)
    assert not (run.folder / "trace.jsonl").read_text().count('barrier": '), "the barrier is not over"
    run.signal("worker 1", signal.SIGKILL)
    assert run.end() == 0
    assert run.summary["workers_lost"] == 1
    lines = [json.loads(text) for text in (run.folder / "trace.jsonl").read_text().splitlines()[1:]]
    assert [next(iter(line)) for line in lines[:2]] == ["lost", "barrier"]
    given = (*PROCESSES[2:], *DATA, "cluster=replay", f"cluster.trace={run.folder}", "run.epochs=1.5")
    again = machine.start(tmp_path / "again", *given)
    assert again.end() == 0
    for key in ("weights_sha256", "updates", "samples", "final_train_loss", "workers_lost"):
        assert again.summary[key] == run.summary[key], key
    assert (again.folder / "metrics.jsonl").read_text() == (run.folder / "metrics.jsonl").read_text()
    # What has other barriers cannot have the same delays.
    other = machine.start(tmp_path / "other", *given, "algorithm.inner=11")
    assert other.end() == 2
    assert "it has barriers after update 0 and then every 11" in machine.output.read_text()


@needs_proc
@pytest.mark.slow
def test_resumed_workers_get_the_snapshot(machine: Host, tmp_path: Path):
    given = (*PROCESSES, *DATA, "run.epochs=4", "run.eval_every=0.25", "cluster.workers=1")
    whole = machine.start(tmp_path / "whole", *given)
    assert whole.end() == 0
    slow = "cluster.compute.seconds=0.01"
    run = machine.start(tmp_path / "run", *given, slow).saved(3)
    run.signal("server", signal.SIGTERM)
    assert run.end() == 143
    assert machine.start(run.folder, *given, slow, resume=True).end() == 0
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert run.summary["updates"] == whole.summary["updates"]
