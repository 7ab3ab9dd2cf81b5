import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms import asgd
from algorithms.base import Message, Step
from tests.drawing import NETWORK as NETWORK_THAT_DRAWS
from tests.trial import QuadraticOracle, Trial, equal, train

# Eight batches of one sample; the oracle's gradient at w is w, whatever the sample.
QUADRATIC = (
    "model=linear",
    "dataset.limit_train=8",
    "run.batch_size=1",
    "run.epochs=1",
    "schedule.lr=0.5",
    "algorithm.weight_decay=0",
    "cluster.compute.distribution=constant",
)
# Gradients take 1, 2 and 4 virtual seconds.
SPEEDS = ("cluster.workers=3", "cluster.compute.seconds=4", "cluster.compute.speeds=[4,2,1]")

# What follows was worked out with pencil and paper. All pull at second 0. Worker 0 pushes at 1, 2, 3, 4, 5; worker 1
# at 2 and 4; worker 2 at 4; at the same second the lower number is first. The eight batches are leased in order of
# the pulls, so after the fifth push nothing is left for workers 1 and 2.
PUSHES = [(0, 1.0, 0), (0, 2.0, 0), (1, 2.0, 2), (0, 3.0, 1), (0, 4.0, 0), (1, 4.0, 2), (2, 4.0, 6), (0, 5.0, 2)]
"""Worker, second and staleness of every push."""
ASGD = [32.0, 16.0, -16.0, -24.0, -12.0, -4.0, -36.0, -30.0]
"""w after each push: half of what was pulled is subtracted: 64, 32, 64, 16, -24, -16, 64, -12."""
DC_ASGD_C = [1 / 2, 1 / 4, 1 / 8, 1 / 256, 1 / 512, -3905 / 2**16, -3905 / 2**17, -2114449343 / 2**36]
"""w after each push with λ0 = 1, from w = 1; for example the third: w = 1/4, backup and gradient 1, so
w <- 1/4 - 1/2 (1 + 1 · 1 · (1/4 - 1)) = 1/8."""
AWARE = [32.0, 16.0, 0.0, -8.0, -4.0, -4.0, -4.0 - 32 / 6, -4.0 - 32 / 6 + 1.0]
"""As ASGD with the step divided by the staleness, where that is larger than 1."""
FALLING = ("schedule=multistep", "schedule.milestones=[0.5]", "schedule.gamma=0.5")
"""The rate is halved after four of the eight updates."""
DC_ASGD_ABS = [1 / 2, 1 / 4, 1 / 8, 1 / 64, 3 / 2**8, -51 / 2**12, 1997 / 2**13, 1004473 / 2**22]
"""w after each push with λ0 = 1, from w = 1; λ doubles when the rate is halved; for example the sixth: w = 3/256,
backup and gradient 1/8, so w <- 3/256 - 1/4 (1/8 + 2 · 1/8 · (3/256 - 1/8)) = -51/4096."""


def played(*overrides: str, start: float, folder: Path, **given: Any) -> tuple[Trial, list[tuple], list[float]]:
    """Run on w²/2 and return the trial, its pushes and the weights after each."""
    trial = Trial(*QUADRATIC, *overrides, folder=folder, oracle=QuadraticOracle(start), **given)
    pushes, weights = [], []
    server: Any = trial.executor
    original = server.server.push

    def push(worker: int, message: Any, step: Any) -> None:
        original(worker, message, step)
        pushes.append((worker, step.staleness))
        weights.append(float(server.server.w))

    server.server.push = push
    seconds: list[float] = []
    trial.notes.on_update = lambda: seconds.append(trial.control.seconds)
    trial.run()
    return trial, [(worker, at, tau) for (worker, tau), at in zip(pushes, seconds, strict=True)], weights


@pytest.mark.parametrize(
    ("algorithm", "start", "expected"),
    [
        (("algorithm=asgd",), 64.0, ASGD),
        (("algorithm=asgd", "algorithm.staleness=aware"), 64.0, AWARE),
        (("algorithm=dc_asgd_c", "algorithm.lambda0=1"), 1.0, DC_ASGD_C),
        (("algorithm=dc_asgd_c", "algorithm.lambda0=1", "algorithm.backup=worker"), 1.0, DC_ASGD_C),
        (("algorithm=dc_asgd_abs", "algorithm.lambda0=1", *FALLING), 1.0, DC_ASGD_ABS),
    ],
)
def test_three_workers_worked_out_by_hand(
    algorithm: tuple[str, ...], start: float, expected: list[float], tmp_path: Path
):
    trial, pushes, weights = played(*algorithm, *SPEEDS, start=start, folder=tmp_path)
    assert pushes == PUSHES
    assert weights == pytest.approx(expected, rel=1e-15)
    assert trial.control.seconds == 5.0
    assert trial.control.updates == 8
    assert trial.control.epoch == 1.0
    row = trial.notes.rows[-1]
    assert (row["staleness_mean"], row["staleness_max"]) == (13 / 8, 6)
    report = trial.executor.timeline.report(5.0)
    assert [worker["gradients"] for worker in report["workers"]] == [5, 2, 1]
    assert [worker["utilization"] for worker in report["workers"]] == [1.0, 0.8, 0.8]
    assert report["staleness"] == {"0": 3, "1": 1, "2": 3, "6": 1}


@pytest.mark.parametrize("method", ["algorithm._target_=tests.drawing.Noisy", "algorithm.staleness=aware"])
def test_drawn_numbers_resume_exactly(method: str, tmp_path: Path):
    """Of a network's functions, of the worker half and of the server half."""
    given = (
        "algorithm=asgd",
        method,
        *NETWORK_THAT_DRAWS,
        "dataset.limit_train=40",
        "run.batch_size=4",
        "run.epochs=2",
    )
    expected = train(*given, "cluster.workers=3", folder=tmp_path)
    state = Trial(*given, "cluster.workers=3", folder=tmp_path, stop_after=7).stopped()
    torch.manual_seed(1)
    assert Trial(*given, "cluster.workers=3", folder=tmp_path).resume(state).run().sha256 == expected.sha256


def test_samples_are_leased_in_pull_order(tmp_path: Path):
    trial, pushes, _ = played("algorithm=asgd", *SPEEDS, start=64.0, folder=tmp_path)
    order = [int(trial.components.batches.batch(number).ids) for number in range(8)]
    asked = [ids[0] for _, ids in trial.components.oracle.asked]  # type: ignore[attr-defined]
    # Leased at the start by workers 0, 1, 2; then by 0, 0, 1, 0, 0 (see the pushes); handled in the order of pushes.
    assert asked == [order[number] for number in (0, 3, 1, 4, 6, 5, 2, 7)]
    assert sorted(asked) == list(range(8))
    assert len(pushes) == 8


def seconds(*overrides: str, folder: Path) -> list[float]:
    return [at for _, at, _ in played("algorithm=asgd", *overrides, start=64.0, folder=folder)[1]]


def test_server_handles_one_message_at_once(tmp_path: Path):
    """Pulls handled at 0.25 and 0.5; pushes arrive at 1.25 and 1.5; each takes 0.25, one after the other."""
    busy = ("cluster.workers=2", "dataset.limit_train=10", "run.epochs=0.4", "cluster.network.server_seconds=0.25")
    assert seconds(*busy, folder=tmp_path) == [1.5, 1.75, 2.75, 3.0]


def test_all_wait_for_a_slow_server(tmp_path: Path):
    """With gradients as long as the service, one push a second, whoever it is from."""
    busy = ("cluster.workers=3", "dataset.limit_train=10", "run.epochs=0.6", "cluster.network.server_seconds=1")
    assert seconds(*busy, folder=tmp_path) == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


NETWORK = ("cluster.workers=1", "cluster.network.latency=0.5", "cluster.network.bandwidth=8")


def test_messages_take_latency_and_bytes_over_bandwidth(tmp_path: Path):
    """4 bytes at 8 a second: request 0.5 (empty), pull 1, gradient 1, push 1, then pull, gradient, push again."""
    assert seconds(*NETWORK, "dataset.limit_train=10", "run.epochs=0.2", folder=tmp_path) == [3.5, 6.5]
    timeline = [json.loads(line) for line in (tmp_path / "timeline.jsonl").read_text().splitlines()]
    spans = [(line["what"], line["start"], line["end"]) for line in timeline if line["what"] != "wait"]
    assert spans == [
        ("transfer", 0.5, 1.5),
        ("compute", 1.5, 2.5),
        ("transfer", 2.5, 3.5),
        ("transfer", 3.5, 4.5),
        ("compute", 4.5, 5.5),
        ("transfer", 5.5, 6.5),
    ]


def test_worker_backups_double_the_push(tmp_path: Path):
    options = ("dataset.limit_train=10", "run.epochs=0.1", "algorithm.lambda0=1")
    for backup, expected in (("server", 3.5), ("worker", 4.0)):
        _, pushes, _ = played(
            "algorithm=dc_asgd_c", *NETWORK, *options, f"algorithm.backup={backup}", start=1.0, folder=tmp_path
        )
        assert [at for _, at, _ in pushes] == [expected]


def test_a_short_batch_takes_less_time(tmp_path: Path):
    short = ("cluster.workers=1", "dataset.limit_train=10", "run.batch_size=4", "cluster.compute.seconds=4")
    assert seconds(*short, folder=tmp_path) == [4.0, 8.0, 10.0]


@pytest.mark.parametrize("algorithm", ["asgd", "dc_asgd_a"])
@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_resume_after_any_update_is_exact(algorithm: str, stop_after: int, tmp_path: Path):
    overrides = (f"algorithm={algorithm}", "algorithm.momentum=0.5", *SPEEDS, "cluster.network.server_seconds=0.1")
    whole, stopped, resumed = (tmp_path / name for name in ("whole", "stopped", "resumed"))
    for folder in (whole, stopped, resumed):
        folder.mkdir()

    def trial(folder: Path, **given: Any) -> Trial:
        return Trial(*QUADRATIC, *overrides, folder=folder, oracle=QuadraticOracle(1.0), **given)

    expected = trial(whole).run()
    state = trial(stopped, stop_after=stop_after).stopped()
    assert state["course"]["updates"] == stop_after
    (resumed / "timeline.jsonl").write_text((stopped / "timeline.jsonl").read_text() + "a line too many\n")
    continued = trial(resumed).resume(state).run()
    assert equal(continued.state, expected.state)
    assert continued.control.seconds == expected.control.seconds
    assert continued.notes.rows == expected.notes.rows
    assert (resumed / "timeline.jsonl").read_text() == (whole / "timeline.jsonl").read_text()


def test_running_statistics_follow_arrivals(tmp_path: Path):
    """r <- 0.9 r + 0.1 b with the statistics of the very batch that is pushed."""
    trial = Trial(
        "algorithm=asgd",
        "model=resnet8",
        "dataset.limit_train=64",
        "run.epochs=2",
        "run.batch_size=16",
        folder=tmp_path,
    )
    replica, server = trial.components.oracle.replica, trial.executor
    expected = server.running_statistics().clone()

    def take() -> None:
        expected.mul_(0.9).add_(replica.statistics, alpha=0.1)

    trial.notes.on_update = take
    trial.run()
    torch.testing.assert_close(server.running_statistics(), expected)
    assert (expected - replica.initial_statistics()).abs().max() > 0.1


def test_seed_and_clock_decide_the_order(tmp_path: Path):
    overrides = ("algorithm=dc_asgd_a", "model=mlp", "dataset.limit_train=128", "run.epochs=2", "run.batch_size=8")
    first, second = (train(*overrides, folder=tmp_path) for _ in range(2))
    assert first.sha256 == second.sha256
    assert first.notes.rows == second.notes.rows
    other = train(*overrides, "cluster.compute.distribution=gamma", folder=tmp_path)
    assert other.sha256 != first.sha256
    assert train(*overrides, "seed=1", folder=tmp_path).sha256 != first.sha256


class Together(asgd.ASGD):
    """ASGD that admits nobody while another computes."""

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        super().start(w, workers, compiled)
        self.computing = set[int]()

    def admits(self, worker: int) -> bool:
        return not self.computing

    def pull(self, worker: int) -> Message:
        self.computing.add(worker)
        return super().pull(worker)

    def push(self, worker: int, message: Message, step: Step) -> bool | None:
        self.computing.remove(worker)
        return super().push(worker, message, step)


def test_each_is_answered_before_the_method_decides_on_the_next(tmp_path: Path):
    """One computes at a time: the one with the smallest number, as it waits since the start, or has just pushed."""
    method = ("algorithm=asgd", f"algorithm._target_={__name__}.Together")
    _, pushes, weights = played(*method, *SPEEDS, start=64.0, folder=tmp_path)
    assert pushes == [(0, float(second), 0) for second in range(1, 9)]
    assert weights == [64.0 / 2**number for number in range(1, 9)]
