from pathlib import Path
from typing import Any

import pytest
import torch

from runner.run_folder.jsonl import read_lines
from tests.drawing import NETWORK
from tests.trial import QuadraticOracle, Trial, equal, train

# Twelve samples, three workers with batches of two: two steps.
QUADRATIC = (
    "algorithm=ssgd",
    "model=linear",
    "dataset.limit_train=12",
    "run.batch_size=2",
    "run.epochs=1",
    "schedule.lr=0.25",
    "algorithm.weight_decay=0",
    "cluster.compute.distribution=constant",
    "cluster.workers=3",
    "cluster.compute.seconds=4",
    "cluster.compute.speeds=[1,2,4]",
)


def played(*overrides: str, folder: Path, start: float = 16.0, **given: Any) -> tuple[Trial, list[float]]:
    trial = Trial(*QUADRATIC, *overrides, folder=folder, oracle=QuadraticOracle(start), **given)
    seconds: list[float] = []
    trial.notes.on_update = lambda: seconds.append(trial.control.seconds)
    return trial, seconds


def test_all_wait_for_the_slowest(tmp_path: Path):
    trial, seconds = played(folder=tmp_path)
    trial.run()
    assert seconds == [4.0, 8.0]
    assert float(trial.executor.weights()) == 9.0, "16, 12, 9: the mean gradient of three equal ones is w"
    workers = trial.executor.timeline.report(8.0)["workers"]
    assert [worker["utilization"] for worker in workers] == [1.0, 0.5, 0.25]
    assert [worker["waiting"] for worker in workers] == [0.0, 0.5, 0.75]
    assert trial.control.samples_seen == 12


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        # 2 (M - 1) = 4 rounds of a latency and a third of the 4 bytes.
        ("ring", 4 * 0.5 + 4 * (4 / 3) / 8),
        # A latency and three times the bytes (DaSGD, section 3.3).
        ("linear", 0.5 + 3 * 4 / 8),
    ],
)
def test_an_all_reduce_follows_the_slowest(kind: str, seconds: float, tmp_path: Path):
    network = (f"cluster.network.allreduce={kind}", "cluster.network.latency=0.5", "cluster.network.bandwidth=8")
    trial, seen = played(*network, folder=tmp_path)
    trial.run()
    assert seen == pytest.approx([4.0 + seconds, 8.0 + 2 * seconds])
    workers = trial.executor.timeline.report(seen[-1])["workers"]
    assert [worker["transferring"] for worker in workers] == pytest.approx([2 * seconds / seen[-1]] * 3)


def test_one_worker_talks_to_nobody(tmp_path: Path):
    alone = ("cluster.workers=1", "cluster.compute.speeds=null", "cluster.network.latency=9")
    trial, seconds = played(*alone, "run.epochs=0.5", folder=tmp_path)
    trial.run()
    assert seconds == [4.0, 8.0, 12.0]


def test_short_steps_count_samples_once(tmp_path: Path):
    """13 samples: the third step has one sample for worker 0 and none for the others, and takes half its time."""
    trial, seconds = played("dataset.limit_train=13", folder=tmp_path)
    trial.run()
    assert seconds == [4.0, 8.0, 10.0]
    assert trial.control.samples_seen == 13
    sizes = [len(ids) for _, ids in trial.components.oracle.asked]  # type: ignore[attr-defined]
    assert sizes == [2, 2, 2, 2, 2, 2, 1, 0, 0]
    # The gradient of one sample of one counts three times in the mean over three workers, an empty share not at all;
    # this oracle gives w for an empty share too, but its share is 0.
    assert float(trial.executor.weights()) == 6.75


def test_uneven_shares_weigh_by_samples(tmp_path: Path):
    """Steps of 8 and 5 samples: two workers' mean is the gradient of the whole batch, as one worker takes it."""
    setting = ("algorithm=ssgd", "model=mlp", "dataset.limit_train=13", "run.epochs=2")
    apart = train(*setting, "cluster.workers=2", "run.batch_size=4", folder=tmp_path).weights
    alone = train(*setting, "cluster.workers=1", "run.batch_size=8", folder=tmp_path).weights
    for name, weight in apart.items():
        torch.testing.assert_close(weight, alone[name], msg=name)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_resume_after_any_step_is_exact(stop_after: int, tmp_path: Path):
    overrides = ("run.epochs=3", "algorithm.momentum=0.5")
    expected, _ = played(*overrides, folder=tmp_path)
    expected.run()
    stopped, _ = played(*overrides, folder=tmp_path, stop_after=stop_after)
    state = stopped.stopped()
    assert state["course"]["updates"] == stop_after
    continued, _ = played(*overrides, folder=tmp_path)
    continued.resume(state).run()
    assert equal(continued.state, expected.state)
    assert continued.control.seconds == expected.control.seconds


DRAWING = (*NETWORK, "dataset.limit_train=40", "dataset.limit_test=10", "run.batch_size=4", "cluster.workers=2")


@pytest.mark.parametrize("method", ["local_sgd", "dasgd"])
def test_functional_dropout_resumes_exactly(method: str, tmp_path: Path):
    given = (f"algorithm={method}", *DRAWING, "run.epochs=2")
    expected = train(*given, folder=tmp_path)
    state = Trial(*given, folder=tmp_path, stop_after=3).stopped()
    torch.manual_seed(1)
    assert Trial(*given, folder=tmp_path).resume(state).run().sha256 == expected.sha256


def test_workers_and_local_steps_drop_different_units(tmp_path: Path):
    """Two workers that compute on the same images and labels, and a method that takes two steps on every batch."""
    given = ("algorithm=local_sgd", "algorithm._target_=tests.drawing.Pieces", *DRAWING, "run.epochs=1")
    trial = Trial(*given, "algorithm.tau=1", folder=tmp_path)
    split = trial.components.dataset.train
    split.inputs[:], split.targets[:] = split.inputs[0].clone(), split.targets[0].clone()
    found: list[torch.Tensor] = []
    oracle: Any = trial.components.oracle
    original, w = oracle.gradient, oracle.replica.weights.clone()

    def watched(weights: torch.Tensor, batch: Any) -> torch.Tensor:
        # All at the same weights and on the same images: only what is dropped tells the gradients apart.
        found.append(original(w, batch).clone())
        return found[-1]

    oracle.gradient = watched
    trial.run()
    assert len(found) == 5 * 2 * 2
    assert len({tuple(gradient.tolist()) for gradient in found}) == len(found)


def test_running_statistics_are_workers_mean(tmp_path: Path):
    overrides = ("algorithm=ssgd", "model=resnet8", "dataset.limit_train=64", "run.epochs=2", "run.batch_size=16")
    trial = Trial(*overrides, "cluster.workers=2", folder=tmp_path)
    replica = trial.components.oracle.replica
    own = [replica.initial_statistics() for _ in range(2)]
    asked: list[torch.Tensor] = []
    gradient = trial.components.oracle.gradient

    def watched(w: torch.Tensor, batch: Any) -> torch.Tensor:
        g = gradient(w, batch)
        asked.append(replica.statistics.clone())
        return g

    trial.components.oracle.gradient = watched
    trial.run()
    assert len(asked) == 8
    for number, statistics in enumerate(asked):
        own[number % 2].mul_(0.9).add_(statistics, alpha=0.1)
    torch.testing.assert_close(trial.executor.running_statistics(), (own[0] + own[1]) / 2)


def test_same_seed_same_bits(tmp_path: Path):
    overrides = ("algorithm=ssgd", "model=mlp", "dataset.limit_train=128", "run.epochs=2", "run.batch_size=8")
    first, second = (train(*overrides, folder=tmp_path) for _ in range(2))
    assert first.sha256 == second.sha256
    assert first.notes.rows == second.notes.rows
    # Virtual time changes no weight of a method whose workers step together.
    assert train(*overrides, "cluster.compute.distribution=gamma", folder=tmp_path).sha256 == first.sha256


DELAYED = (
    "algorithm=dasgd",
    "algorithm.weight_decay=0",
    "algorithm.tau=4",
    "model=linear",
    "dataset.limit_train=48",
    "run.batch_size=2",
    "run.epochs=1",
    "cluster.workers=3",
    "cluster.compute.distribution=constant",
    "cluster.network.allreduce=linear",
    "cluster.network.bandwidth=1",
)
"""Eight steps of three workers, a second each; twelve bytes of one weight travel at a byte a second."""


def delayed(*overrides: str, folder: Path, **given: Any) -> tuple[Trial, list[float]]:
    trial = Trial(*DELAYED, *overrides, folder=folder, oracle=QuadraticOracle(16.0), **given)
    seconds: list[float] = []
    trial.notes.on_update = lambda: seconds.append(trial.control.seconds)
    return trial, seconds


@pytest.mark.parametrize(
    ("bandwidth", "delay", "seconds", "hidden"),
    [
        # Sent at 4, there at 4.8, before the step that merges it ends at 5.
        (15.0, 1, [1, 2, 3, 4, 5, 6, 7, 8], 0.8),
        # There at 5.5: half a second is waited, a second is hidden; the second one is sent at 8.5 and never merged.
        (8.0, 1, [1, 2, 3, 4, 5.5, 6.5, 7.5, 8.5], 1.0),
        (8.0, 2, [1, 2, 3, 4, 5, 6, 7, 8], 1.5),
        # Without delay every one is waited for.
        (8.0, 0, [1, 2, 3, 5.5, 6.5, 7.5, 8.5, 11], 0.0),
    ],
)
def test_combinations_travel_during_local_steps(
    bandwidth: float, delay: int, seconds: list[float], hidden: float, tmp_path: Path
):
    trial, seen = delayed(f"cluster.network.bandwidth={bandwidth}", f"algorithm.delay={delay}", folder=tmp_path)
    trial.run()
    assert seen == pytest.approx(seconds)
    row = trial.notes.rows[-1]
    assert row["hidden_seconds"] == pytest.approx(hidden)
    merged = 1 if delay else 2
    assert row["communication_seconds"] == pytest.approx(merged * 12 / bandwidth)
    for worker in trial.executor.timeline.report(seen[-1])["workers"]:
        exposed = row["communication_seconds"] - row["hidden_seconds"]
        assert worker["transferring"] * seen[-1] == pytest.approx(exposed)
        assert worker["utilization"] * seen[-1] == pytest.approx(8.0)
        assert worker["waiting"] == 0.0


def test_combinations_share_one_network(tmp_path: Path):
    """Three seconds each, one sent every two seconds: the second starts when the first has arrived, at 5, not at 4."""
    trial, seen = delayed("algorithm.tau=2", "cluster.network.bandwidth=4", folder=tmp_path)
    for method in trial.executor.methods:  # type: ignore[attr-defined]
        # DaSGD's own delays end before the next average is sent; a method's need not.
        method.delay = 3
    trial.run()
    # Sent at 2, 4 and 6; there at 5, 8 and 11; merged by the steps that end at 5, 7 and 9.
    assert seen == pytest.approx([1, 2, 3, 4, 5, 6, 8, 9])
    assert trial.notes.rows[-1]["communication_seconds"] == pytest.approx(6.0)


def test_slow_workers_delay_only_missing_averages(tmp_path: Path):
    """Worker 0 needs 2 s a step, the others 1 s: it sends at 8, and only the step that merges waits for that."""
    trial, seen = delayed("cluster.compute.speeds=[0.5,1,1]", "cluster.network.bandwidth=12", folder=tmp_path)
    trial.run()
    # The fast ones are at 5 when they need what is there at 9; the slow one is at 10 then.
    assert seen == pytest.approx([2, 4, 6, 8, 10, 12, 14, 16])
    fast = trial.executor.timeline.report(16.0)["workers"][1]
    assert fast["waiting"] * 16 == pytest.approx(3.0)
    assert fast["transferring"] * 16 == pytest.approx(1.0)
    # The slow worker hid the whole second, the others none of it.
    assert trial.notes.rows[-1]["hidden_seconds"] == pytest.approx(1 / 3)


def test_neighbours_travel_while_workers_go_on(tmp_path: Path):
    """A second a step, sent at 4; on a line of three its middle gets two messages of a second each, its ends one."""
    late = ("algorithm._target_=tests.gossiping.Late", "cluster.network.allreduce=ring", "cluster.network.bandwidth=4")
    trial, seen = delayed(*late, folder=tmp_path)
    trial.run()
    # The ends hide their second, the middle waits for the second of its two.
    assert trial.executor.times.now.tolist() == [8.0, 9.0, 8.0]  # type: ignore[attr-defined]
    assert seen == [1, 2, 3, 4, 6, 7, 8, 9]
    row = trial.notes.rows[-1]
    assert (row["communication_seconds"], row["hidden_seconds"]) == pytest.approx((4 / 3, 1.0))


@pytest.mark.parametrize("stop_after", [4, 5, 6])
def test_neighbours_that_travel_are_in_a_checkpoint(stop_after: int, tmp_path: Path):
    late = ("algorithm._target_=tests.gossiping.Late", "algorithm.delay=2", "cluster.network.bandwidth=2")
    expected, _ = delayed(*late, folder=tmp_path)
    expected.run()
    stopped, _ = delayed(*late, folder=tmp_path, stop_after=stop_after)
    state = stopped.stopped()
    assert len(state["executor"]["travelling"]) == (stop_after < 6)
    continued, _ = delayed(*late, folder=tmp_path)
    continued.resume(state).run()
    assert equal(continued.state, expected.state)
    assert continued.control.seconds == expected.control.seconds
    assert continued.notes.rows[-1]["hidden_seconds"] == expected.notes.rows[-1]["hidden_seconds"]


def test_disagreement_is_the_distance_from_the_mean(tmp_path: Path):
    trial = Trial("algorithm=dasgd", "model=mlp", "run.epochs=1", "cluster.workers=3", folder=tmp_path).run()
    weights = torch.stack([method.solution() for method in trial.executor.methods])  # type: ignore[attr-defined]
    distances = (weights - weights.mean(0)).norm(dim=1)
    row = trial.notes.rows[-1]
    assert row["disagreement_mean"] == pytest.approx(float(distances.mean()), rel=1e-4)
    assert row["disagreement_max"] == pytest.approx(float(distances.max()), rel=1e-4)
    assert 0 < row["disagreement_mean"] < row["disagreement_max"]


def test_disagreement_is_of_workers_own_weights(tmp_path: Path):
    """Also where what is evaluated is a vector that all workers share."""
    given = ("algorithm=local_sgd", "algorithm._target_=tests.speaking.Centred", "algorithm.tau=3", "run.batch_size=8")
    data = ("model=mlp", "dataset.limit_train=64", "dataset.limit_test=10", "cluster.workers=2")
    trial = Trial(*given, *data, "run.epochs=2", folder=tmp_path).run()
    methods: Any = trial.executor.methods  # type: ignore[attr-defined]
    assert torch.equal(methods[0].solution(), methods[1].solution())
    apart = float((methods[0].w - methods[1].w).norm()) / 2
    assert apart > 0, "the last steps came after the last average"
    assert trial.notes.rows[-1]["disagreement_mean"] == pytest.approx(apart, rel=1e-4)


def test_disagreement_is_logged_layer_by_layer(tmp_path: Path):
    overrides = ("algorithm=dasgd", "model=mlp", "run.epochs=2", "cluster.workers=3", "run.diagnostics=[disagreement]")
    trial = Trial(*overrides, folder=tmp_path).run()
    lines = read_lines(tmp_path / "layers.jsonl")
    assert len(lines) == 2
    weights = torch.stack([method.solution() for method in trial.executor.methods])  # type: ignore[attr-defined]
    apart = weights - weights.mean(0)
    for layer in trial.components.oracle.replica.layers:
        expected = float(apart[:, layer.low : layer.high].norm(dim=1).mean())
        assert lines[-1]["disagreement"][layer.name] == pytest.approx(expected, rel=1e-4)
        assert expected > 0


def test_equal_weights_have_no_disagreement(tmp_path: Path):
    trial, _ = played(folder=tmp_path)
    trial.run()
    assert not {"disagreement_mean", "hidden_seconds"} & trial.notes.rows[-1].keys()


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("stop_after", range(1, 9))
def test_resume_with_travelling_average_is_exact(stop_after: int, delay: int, tmp_path: Path):
    overrides = (
        *("algorithm=dasgd", "algorithm.tau=4", f"algorithm.delay={delay}", "algorithm.momentum=0.9", "model=mlp"),
        *("dataset.limit_train=60", "run.batch_size=5", "cluster.workers=3", "run.epochs=3", "run.eval_every=0.5"),
        *("cluster.network.bandwidth=40000", "cluster.compute.distribution=gamma"),
    )
    expected = train(*overrides, folder=tmp_path)
    stopped = Trial(*overrides, folder=tmp_path, stop_after=stop_after)
    state = stopped.stopped()
    travels = any(k <= stop_after < k + delay for k in (4, 8))
    assert bool(state["executor"]["travelling"]) == travels
    continued = Trial(*overrides, folder=tmp_path).resume(state).run()
    assert continued.sha256 == expected.sha256
    assert continued.control.seconds == expected.control.seconds
    assert continued.notes.rows[-1] == expected.notes.rows[-1]


def test_a_gathering_follows_the_slowest(tmp_path: Path):
    """Three workers send 8 bytes, a gradient and its norm: in a ring twice, one latency each."""
    network = ("cluster.network.latency=0.5", "cluster.network.bandwidth=8")
    trial, seen = played("algorithm=dc_ssgd", "algorithm.lambda0=0", "schedule.lr=0.1", *network, folder=tmp_path)
    trial.run()
    assert seen == pytest.approx([4 + 3.0, 8 + 6.0])
    assert float(trial.executor.weights()) == pytest.approx(16 * 0.7**2)


def test_idle_workers_keep_their_statistics(tmp_path: Path):
    """Seven samples for three workers of two: one is left for the second step, which only the first worker takes."""
    given = ("algorithm=ssgd", "model=resnet8", "dataset.limit_train=7", "run.batch_size=2", "cluster.workers=3")
    executor: Any = Trial(*given, "run.epochs=1", "run.eval_every=9", folder=tmp_path).executor
    executor._step(executor.batches.shares(0, 3))
    before = executor.statistics.clone()
    executor._step(executor.batches.shares(1, 3))
    assert [torch.equal(after, own) for after, own in zip(executor.statistics, before, strict=True)] == [
        False,
        True,
        True,
    ]


def test_gatherings_under_way_are_kept(tmp_path: Path):
    executor: Any = Trial(*QUADRATIC, "algorithm=dc_ssgd", folder=tmp_path, oracle=QuadraticOracle(1.0)).executor
    message = {"g": torch.ones(1)}
    assert executor._stack(message) is executor._stack(message), "one that is applied at once needs no other room"
    executor.methods[0].delay = 1
    assert executor._stack(message) is not executor._stack(message)
