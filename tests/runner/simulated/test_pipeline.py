"""Virtual time, memory and directions of modules, worked out by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from algorithms.base import Step
from algorithms.pipeline import Features
from models.base import Chain
from runner.config.errors import InputError
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.gradients.replica import Replica
from runner.loop.pipeline_schedule import iterate
from runner.train import build
from tests.drawing import NETWORK
from tests.trial import Trial, compose, run_in, train

TIMED = (
    "model=resnet8",
    "dataset.limit_train=40",
    "dataset.limit_test=10",
    "run.batch_size=8",
    "run.epochs=1",
    "cluster.compute.distribution=constant",
    "cluster.compute.seconds=3",
)
STEPS = 5


def seconds(tmp_path: Path, *overrides: str, shares: list[float]) -> float:
    trial = Trial(*TIMED, *overrides, f"cluster.workers={len(shares)}", folder=tmp_path)
    executor: Any = trial.executor
    executor.partition.work_shares = shares
    return trial.run().control.seconds


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_equal_modules_take_table_3_time(workers: int, tmp_path: Path):
    """T_F = 1, T_B = 2."""
    equal = [1 / workers] * workers
    assert seconds(tmp_path, "algorithm=bp", shares=equal) == pytest.approx(STEPS * 3)
    assert seconds(tmp_path, "algorithm=ddg", shares=equal) == pytest.approx(STEPS * (1 + 2 / workers))
    # The last module does not replay: it is through a T_F/K earlier, in the last iteration the others are not.
    again = 1 / workers if workers > 1 else 0
    assert seconds(tmp_path, "algorithm=fr", shares=equal) == pytest.approx(STEPS * (1 + 2 / workers + again))


def test_the_slowest_module_decides(tmp_path: Path):
    # Forward 0.25 + 0.75; backward 0.5 and 1.5. The first module is free 1 s before the second, and plays meanwhile.
    expected = 1 + 1.5 + (STEPS - 1) * (0.75 + 1.5)
    assert seconds(tmp_path, "algorithm=ddg", shares=[0.25, 0.75]) == pytest.approx(expected)


@pytest.mark.parametrize("order", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("workers", "micro_batches"), [(2, 4), (4, 4), (4, 1)])
def test_a_flush_leaves_a_bubble(workers: int, micro_batches: int, order: str, tmp_path: Path):
    """(K − 1)/(m + K − 1) of the time, if modules are equal."""
    given = ("algorithm=gpipe", f"algorithm.order={order}", f"algorithm.micro_batches={micro_batches}")
    took = seconds(tmp_path, *given, shares=[1 / workers] * workers)
    bubble = 1 - STEPS * 3 / workers / took
    assert bubble == pytest.approx((workers - 1) / (micro_batches + workers - 1))


def test_micro_batches_travel_as_messages_of_their_own(tmp_path: Path):
    """Two modules, two micro-batches: forward 0.25 each, backward 0.5, and 0.1 for each message."""
    slow = ("cluster.network.latency=0.1", "algorithm=gpipe", "algorithm.micro_batches=2")
    # The second module begins at 0.35, and with the second micro-batch, which is there then, at 0.6. It goes back from
    # 0.85 on, and what it sends at 1.35 and 1.85 takes the first module from 1.45 to 1.95 and to 2.45.
    assert seconds(tmp_path, *slow, shares=[0.5, 0.5]) == pytest.approx(STEPS * 2.45)


class Spans:
    """A timeline that keeps what was computed, by module."""

    def __init__(self, workers: int) -> None:
        self.computed: list[list[tuple[float, float]]] = [[] for _ in range(workers)]

    def span(self, worker: int, kind: str, begin: float, end: float) -> None:
        if kind == "compute":
            self.computed[worker].append((round(begin, 6), round(end, 6)))


def test_one_forward_one_backward_has_no_bubble(tmp_path: Path):
    """PipeDream by hand: three equal modules, forward 1 and backward 2; what is sent is there at once."""
    trial = Trial(*TIMED, "algorithm=pipedream", "cluster.compute.seconds=9", "cluster.workers=3", folder=tmp_path)
    executor: Any = trial.executor
    executor.partition.work_shares = [1 / 3] * 3
    executor.times.timeline = spans = Spans(3)
    trial.run()
    # Five batches: the gradients of the last two do not reach the first module, that of the last one not the second.
    assert spans.computed == [
        [(0, 1), (1, 2), (2, 3), (7, 9), (9, 10), (10, 12), (12, 13), (13, 15)],
        [(1, 2), (2, 3), (5, 7), (7, 8), (8, 10), (10, 11), (11, 13), (13, 14), (14, 16)],
        [(2, 3), (3, 5), (5, 6), (6, 8), (8, 9), (9, 11), (11, 12), (12, 14), (14, 15), (15, 17)],
    ]
    assert trial.control.seconds == pytest.approx(17)


def test_two_versions_leave_no_bubble(tmp_path: Path):
    """PipeDream-2BW: two modules, forward 0.25 and backward 0.5 for each of two micro-batches.

    The second module begins at 0.25 and is busy from then on, without a flush.
    """
    given = ("algorithm=pipedream_2bw", "algorithm.micro_batches=2")
    assert seconds(tmp_path, *given, shares=[0.5, 0.5]) == pytest.approx(0.25 + STEPS * 2 * 0.75)


def test_messages_take_time(tmp_path: Path):
    slow = ("cluster.network.latency=0.1", "algorithm=bp")
    assert seconds(tmp_path, *slow, shares=[0.5, 0.5]) == pytest.approx(STEPS * 3.2)
    # The error gradient travels while the first module plays, and arrives 0.1 after the second's backward pass, which
    # ended as the first's did; the features of an iteration take 0.1.
    ddg = seconds(tmp_path, "cluster.network.latency=0.1", "algorithm=ddg", shares=[0.5, 0.5])
    assert ddg == pytest.approx(STEPS * 2.1)


def test_module_shares_are_multiply_adds():
    components = build.build_run(compose("algorithm=bp", "model=mlp", "model.widths=[32]"))
    partition = Partition(components.oracle, 2, None, components.dataset.shape, components.dataset.classes)
    assert partition.work_shares == pytest.approx([64 * 32 / (64 * 32 + 32 * 10), 32 * 10 / (64 * 32 + 32 * 10)])
    assert partition.outputs == [(32,), (10,)]
    assert partition.nbytes(0, 8) == 4 * 8 * 32


class Uniform(Chain):
    """Layers that all save their input alone, of 64 features."""

    def __init__(self, layers: int) -> None:
        super().__init__([(f"layer{i}", nn.Linear(64, 64, bias=False)) for i in range(layers)])


def test_micro_batches_and_versions_in_memory(tmp_path: Path):
    """Of eight layers in four modules: GPipe holds all four micro-batches, 1F1B K − k + 1 of them in module k.

    PipeDream holds what DDG does, and with vertical sync four versions in each module.
    """

    def peak(*overrides: str) -> float:
        return _uniform(Trial(*TIMED, *overrides, "cluster.workers=4", folder=tmp_path), 8, 4)

    boundary, weights = 4 * 8 * 64, 4 * 64 * 64
    loss = peak("algorithm=bp") - 8 * boundary
    assert peak("algorithm=gpipe") == pytest.approx(8 * boundary + loss, abs=64)
    expected = 2 * (4 + 3 + 2 + 1) / 4 * boundary + loss / 4
    assert peak("algorithm=gpipe", "algorithm.order=1f1b") == pytest.approx(expected, abs=64)
    stashed = peak("algorithm=pipedream")
    assert stashed == peak("algorithm=ddg")
    # 4, 3 and 2 versions of two layers each, and none in the last module, become four in each.
    more = (4 * 4 - (4 + 3 + 2)) * 2 * weights
    # Micro-batches in flight as with 1F1B, and two versions besides the newest, in the last module one.
    assert peak("algorithm=pipedream_2bw") == pytest.approx(expected + (2 + 2 + 2 + 1) * 2 * weights, abs=64)
    assert peak("algorithm=pipedream", "algorithm.weights=vertical") == stashed + more


@pytest.mark.parametrize("workers", [2, 4])
def test_uniform_chain_holds_thesis_memory(workers: int, tmp_path: Path):
    """In boundary features, with L layers: BP L, DDG L(K + 1)/2, FR L + K(K + 1)/2 (table 6).

    A replay's input is one of the K − k + 1 that are stored, so K of them are not counted twice. Stashed weights
    are DDG's own: K − k + 1 copies of each module but the last, that of the pass being made among them.
    """
    layers = 8

    def peak(*overrides: str) -> float:
        trial = Trial(*TIMED, *overrides, f"cluster.workers={workers}", folder=tmp_path)
        return _uniform(trial, layers, workers)

    boundary = 4 * 8 * 64
    weights = 4 * 64 * 64
    loss = peak("algorithm=bp") - layers * boundary
    assert loss == pytest.approx(4 * 8 * 64 + 8 * 8 + 4, abs=8 * 64), "what the loss saves: log-softmax, targets"
    copies = sum(workers - k + 1 for k in range(1, workers)) * (layers / workers) * weights
    assert peak("algorithm=ddg") - loss - copies == layers * (workers + 1) / 2 * boundary
    assert peak("algorithm=ddg", "algorithm.weights=current") == peak("algorithm=ddg") - copies, "activations alone"
    assert peak("algorithm=fr") - loss == (layers + workers * (workers + 1) / 2 - workers) * boundary


def test_synthesizers_are_in_memory(tmp_path: Path):
    """Module 1 of two: its graph, the features that wait, the synthesizer with Adam's moments, and its own graph."""
    trial = Trial(*TIMED, "algorithm=dni", "cluster.workers=2", folder=tmp_path)
    executor: Any = trial.executor
    stage, method = executor.partition.stages[0], executor.methods[0]
    executor._step()
    before = stage.peak
    executor.step += 1
    executor._step()
    held = sum(method.synthesizer.held.values())
    assert held > 0
    weights = 4 * method.synthesizer.weights.numel()
    kept = 4 * 8 * math.prod(executor.partition.outputs[0])
    # Of the features that wait, the graph of learning holds what is concatenated with the labels, not themselves.
    assert before > 3 * weights, "weights and two moments, from the first iteration on"
    assert stage.peak == pytest.approx(before + kept + held, abs=kept)


def test_synthesizers_take_time(tmp_path: Path):
    """By its multiply-adds: a guess, learning's forward pass and its backward pass, two thirds of a gradient."""
    given = ("algorithm=dni", "model=mlp", "model.widths=[32]", *TIMED[1:], "cluster.workers=2")
    executor: Any = Trial(*given, folder=tmp_path).executor
    # From 42 features and labels to 32, then twice from 32 to 32; the network has 64 · 32 and 32 · 10.
    assert executor.methods[0].extra_operations() == 4 * 2 * (42 * 32 + 2 * 32 * 32)
    assert executor.methods[1].extra_operations() == 0
    network, extra = 64 * 32 + 32 * 10, 4 * (42 * 32 + 2 * 32 * 32)
    shares = [64 * 32 / network, 32 * 10 / network]
    executor.run()
    forward = 3 * (shares[0] + shares[1]) / 3
    # Module 1's backward pass is the longest: two thirds of its share, and the synthesizer.
    assert executor.control.seconds == pytest.approx(STEPS * (forward + 2 * shares[0] + extra / network))


def _uniform(trial: Trial, layers: int, workers: int) -> float:
    """Drive the trial's methods on a uniform chain in place of its network, in the executor's order."""
    oracle = NetworkOracle(Replica(Uniform(layers)), trial.components.dataset.train, seed=0)
    size = layers // workers
    partition = Partition(oracle, workers, [f"layer{size * k}" for k in range(1, workers)], (64,), 64)
    methods: Any = [trial.components.new_method() for _ in range(workers)]
    for rank, method in enumerate(methods):
        method.setup(partition.stages[rank].weights, partition.stage_info(rank))
        partition.stages[rank].method = method
    sent: list[Any] = [None] * workers
    for t in range(2 * workers):
        pieces = methods[0].micro_batches
        assert 8 % pieces == 0
        inputs, targets = torch.randn(8, 64).chunk(pieces), torch.arange(8).chunk(pieces)
        # Copies: each micro-batch has a memory of its own.
        features = [Features(t, inputs[i].clone(), targets[i].clone(), i, pieces, 1 / pieces) for i in range(pieces)]
        sent = iterate(methods, partition.stages, features, sent, Step(lr=0.01))
    return sum(stage.peak for stage in partition.stages)


def test_back_propagation_has_sigma_one(tmp_path: Path):
    setting = (*TIMED, "algorithm=bp", "run.diagnostics=[sufficient_direction]")
    code, measured = run_in(tmp_path / "a", *setting)
    assert code == 0
    (line,) = [json.loads(text) for text in (tmp_path / "a" / "layers.jsonl").read_text().splitlines()]
    assert line["sufficient_direction"] == pytest.approx({"module1": 1.0, "module2": 1.0})
    assert measured["weights_sha256"] == train(*TIMED, "algorithm=bp", folder=tmp_path).sha256


SIGMA = ("dataset.limit_train=64", "run.batch_size=8", "run.epochs=1", "run.diagnostics=[sufficient_direction]")
LAYERS = ("model=mlp", "model.widths=[12,10,8]", "cluster.workers=4")


def sigma(folder: Path) -> dict[str, float]:
    return json.loads((folder / "layers.jsonl").read_text().splitlines()[-1])["sufficient_direction"]


@pytest.mark.parametrize(
    "method",
    [
        ("algorithm=ddg",),
        ("algorithm=ddg", "algorithm.start=zero", "algorithm.weights=current"),
        ("algorithm=fr",),
        ("algorithm=fr", "algorithm.start=skip", *NETWORK, "cluster.workers=2"),
        ("algorithm=gpipe",),
        ("algorithm=pipedream", "algorithm.weights=vertical"),
        ("algorithm=pipedream_2bw",),
    ],
    ids=["ddg", "ddg, zero", "fr", "fr, dropout", "gpipe", "pipedream", "pipedream_2bw"],
)
def test_weights_at_rest_have_sigma_one(method: tuple[str, ...], tmp_path: Path):
    """Eq. 6.10 compares gradients of the same batch: with a rate of 1e-8 nothing is late, whatever the delay."""
    Trial(*SIGMA, *(() if "model=linear" in method else LAYERS), *method, "schedule.lr=1e-8", folder=tmp_path).run()
    found = sigma(tmp_path)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-4)


def test_sigma_of_delayed_gradients_is_theirs(tmp_path: Path):
    """Two iterations by hand: at t=1 module 1 takes the gradient of t=0, on the same batch at the weights of t=1."""
    setting = ("model=mlp", "dataset.limit_train=16", "run.batch_size=8", "run.epochs=1", "algorithm=ddg")
    trial = Trial(*setting, "run.diagnostics=[sufficient_direction]", "schedule.lr=0.5", folder=tmp_path)
    executor: Any = trial.executor
    piece = slice(*executor.partition.pieces[0][:2])
    oracle, batch = trial.components.oracle, trial.components.batches.batch(0)
    before = oracle.gradient(oracle.replica.weights, batch)[piece].double()
    oracle.take_totals()
    executor._step()
    executor.step += 1
    after = oracle.gradient(oracle.replica.weights, batch)[piece].double()
    oracle.take_totals()
    trial.run()
    found = sigma(tmp_path)
    assert found["module1"] == pytest.approx(float(after @ before / (after @ after)), rel=1e-4)
    assert found["module1"] != pytest.approx(1.0, abs=0.01)
    assert found["module2"] == pytest.approx(1.0)


def test_sigma_changes_nothing_but_itself(tmp_path: Path):
    """Neither weights, running statistics, memory nor losses, with batch norm and dropout."""
    given = ("algorithm=fr", "model=resnet8", *TIMED[1:], "cluster.workers=3")
    watched = Trial(*given, "run.diagnostics=[sufficient_direction]", folder=tmp_path).run()
    plain = Trial(*given, folder=tmp_path).run()
    assert watched.sha256 == plain.sha256
    assert torch.equal(watched.executor.running_statistics(), plain.executor.running_statistics())
    assert watched.notes.rows == plain.notes.rows


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("run.precision=bf16",), r"^run\.precision=bf16: algorithm=ddg cuts the network into modules; allowed: "),
        (("run.compile=true",), r"^run\.compile=.*; allowed: false"),
        (("run.micro_batch=4",), r"^run\.micro_batch=4: .*; allowed: null"),
        (("cluster.record=true",), r"^cluster\.record="),
        (("run.diagnostics=[disagreement]",), r"^run\.diagnostics=disagreement: "),
        (("algorithm=asgd", "run.diagnostics=[sufficient_direction]"), r"^run\.diagnostics=sufficient_direction: "),
    ],
)
def test_what_modules_cannot_do_is_refused(overrides: tuple[str, ...], message: str):
    with pytest.raises(InputError, match=message):
        build.build_run(compose("algorithm=ddg", *overrides))
