import copy
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms import blockwise
from algorithms.base import Batch
from data.base import Split
from data.digits import Digits
from models.base import Chain
from models.resnet import ResNet
from runner.gradients.cuda_graph import MAX_GRAPHS
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from runner.train import build
from tests.drawing import Drawing
from tests.graphs import CpuGraphs, HostWaited, host_never_waits
from tests.trial import Trial

DIGITS = Digits(limit_train=64, limit_test=20, augment=True)
STEPS = [(16, 0), (16, 0), (16, 1), (7, 1), (16, 1), (7, 2), (7, 3), (16, 3)]
"""Samples and epoch of some batches."""


def network(**options: Any) -> Chain:
    torch.manual_seed(0)
    return ResNet(depth=8, shape=(1, 8, 8), classes=10, **options)


def oracle(graphs: CpuGraphs | None, module: nn.Module | None = None, **options: Any) -> NetworkOracle:
    return NetworkOracle(Replica(module or network()), DIGITS.train, seed=3, graphs=graphs, **options)


def batches(steps: list[tuple[int, int]] = STEPS) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(number, epoch, torch.randperm(64, generator=generator)[:size])
        for number, (size, epoch) in enumerate(steps)
    ]


def same(a: NetworkOracle, b: NetworkOracle) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in (
            (a.totals, b.totals),
            (a.replica.statistics, b.replica.statistics),
            (a.replica.weights, b.replica.weights),
            (a.replica.gradient, b.replica.gradient),
        )
    )


def buffers(asked: NetworkOracle) -> list[Tensor]:
    return [buffer.clone() for buffer in asked.replica.module.buffers()]


def test_replayed_steps_equal_eager_bits():
    graphs = CpuGraphs()
    captured, eager = oracle(graphs), oracle(None)
    workers = [eager.replica.weights + 0.01 * m for m in range(3)]
    with host_never_waits() as watch:
        gradients = [captured.gradient(workers[b.number % 3], b).clone() for b in batches()]
    assert watch.seen > 0
    for batch, gradient in zip(batches(), gradients, strict=True):
        assert torch.equal(eager.gradient(workers[batch.number % 3], batch), gradient)
    assert same(captured, eager)
    # The first batch of each size as it is, the second captured, all from then on replayed.
    assert (graphs.captures, graphs.replays) == (2, len(STEPS) - 2)
    assert graphs.warm_ups == 2
    assert all(torch.equal(a, b) for a, b in zip(buffers(captured), buffers(eager), strict=True))


def numbers(asked: NetworkOracle) -> list[list[float]]:
    """What an oracle has listed of its counts."""
    return [[float(each) for each in sums] for sums in asked.counts or []]


def test_captured_steps_are_listed_once_each():
    """For who adds up the sums elsewhere: neither warm-ups nor recordings count, and replays do."""
    listed, eager = oracle(CpuGraphs()), oracle(None)
    for asked in (listed, eager):
        asked.counts = []
        for batch in batches():
            asked.gradient(asked.replica.weights, batch)
    assert numbers(listed) == numbers(eager)
    assert len(numbers(listed)) == len(STEPS)
    assert torch.equal(listed.totals, eager.totals)


def test_capturing_changes_and_draws_nothing():
    asked = oracle(CpuGraphs())
    first, second, *_ = batches()
    asked.gradient(asked.replica.weights, first)
    weights, totals, before = asked.replica.weights.clone(), asked.totals.clone(), buffers(asked)
    assert asked.steps is not None
    torch.manual_seed(0)
    asked.steps._capture(second.ids)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(asked.replica.weights, weights)
    assert torch.equal(asked.totals, totals)
    assert all(torch.equal(a, b) for a, b in zip(buffers(asked), before, strict=True))
    assert any(name.endswith("num_batches_tracked") for name, _ in asked.replica.module.named_buffers())


@pytest.mark.parametrize("moved", ["weights", "inputs"])
def test_the_double_finds_a_buffer_that_moves(moved: str):
    asked = oracle(CpuGraphs())
    for batch in batches()[:3]:
        asked.gradient(asked.replica.weights, batch)
    if moved == "weights":
        for p in asked.replica.module.parameters():
            p.data = p.data.clone()
    else:
        assert asked.steps is not None
        held = asked.steps.captured[16, 0].ids
        held.data = held.clone()
    with pytest.raises(AssertionError, match="has moved"):
        asked.gradient(asked.replica.weights, batches()[4])


@pytest.mark.parametrize("how", ["item", "tolist", "bool", "mask"])
def test_the_watch_finds_a_host_that_waits(how: str):
    numbers = torch.arange(3.0)
    ways = {
        "item": lambda: numbers[0].item(),
        "tolist": lambda: numbers.tolist(),
        "bool": lambda: bool(numbers[0] > 1),
        "mask": lambda: numbers[numbers > 1],
    }
    with pytest.raises(HostWaited), host_never_waits():
        ways[how]()


class Dropped(Chain):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__([("flat", nn.Flatten()), ("drop", nn.Dropout(0.5)), ("out", nn.Linear(64, 10))])


class Counted(Chain):
    """A network whose Python looks at its results."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__([("flat", nn.Flatten()), ("out", nn.Linear(64, 10))])

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs if outputs.sum() > 1e9 else outputs * 2


FALLBACKS = {
    "drops units": (Dropped, {}),
    "operation not permitted when stream is capturing": (Counted, {}),
    "run.micro_batch": (functools.partial(network, batch_norm=False), {"micro_batch": 5}),
}


def test_networks_that_draw_are_not_captured():
    """Dropout in functions is seen when the first step has drawn, before the second one would be captured."""
    given = torch.manual_seed(0) and Drawing(shape=(1, 8, 8), classes=10)
    graphs = CpuGraphs()
    captured, eager = (oracle(each, copy.deepcopy(given)) for each in (graphs, None))
    for batch in batches([(16, 0)] * 3):
        expected = eager.gradient(eager.replica.weights, batch)
        assert torch.equal(captured.gradient(captured.replica.weights, batch), expected)
    assert captured.steps is not None
    assert captured.steps.refused == "the network draws random numbers, anew for each batch"
    assert graphs.captures == 0


@pytest.mark.parametrize("reason", FALLBACKS)
def test_refused_captures_are_said_once(reason: str, caplog: pytest.LogCaptureFixture):
    make, options = FALLBACKS[reason]
    caplog.set_level(logging.INFO, logger="dcrun")
    graphs = CpuGraphs()
    asked, eager = oracle(graphs, make(), **options), oracle(None, make(), **options)
    w = eager.replica.weights.clone()
    for batch in batches():
        assert torch.equal(asked.gradient(w, batch), eager.gradient(w, batch))
    assert same(asked, eager)
    assert graphs.replays == 0
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    assert "\n" not in caplog.text.strip()


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError(""), "(RuntimeError)"), (AssertionError("odd\nvery"), "(odd)"), (KeyError(), "Key")],
)
def test_failed_captures_warn_and_go_on(error: Exception, said: str, caplog: pytest.LogCaptureFixture):
    class Failing(CpuGraphs):
        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            raise error

    asked, eager = oracle(Failing()), oracle(None)
    for batch in batches():
        assert torch.equal(asked.gradient(asked.replica.weights, batch), eager.gradient(eager.replica.weights, batch))
    assert same(asked, eager)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert said in record.getMessage()


def test_recorded_norms_are_not_captured(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="dcrun")
    graphs = CpuGraphs()
    asked, eager = oracle(graphs), oracle(None)
    w = eager.replica.weights.clone()
    for batch in batches():
        for a, b in zip(asked.gradient_and_norms(w, batch), eager.gradient_and_norms(w, batch), strict=True):
            assert torch.equal(a, b)
    assert graphs.captures == 0
    assert len(caplog.records) == 1


def test_streamed_splits_are_not_captured():
    class Streamed(Split):
        def expect(self, ids: Tensor, **given: Any) -> None:
            pass

    split = Streamed(DIGITS.train.inputs, DIGITS.train.targets)
    asked = NetworkOracle(Replica(network()), split, seed=0, graphs=CpuGraphs())
    assert asked.steps is not None
    assert asked.steps.refused == "samples are decoded on the CPU as they are used"


def test_few_batch_sizes_are_captured(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="dcrun")
    graphs = CpuGraphs()
    captured, eager = oracle(graphs), oracle(None)
    w = eager.replica.weights.clone()
    for batch in batches([(size, 0) for size in range(2, 4 + MAX_GRAPHS)] * 3):
        assert torch.equal(captured.gradient(w, batch), eager.gradient(w, batch))
    assert graphs.captures == MAX_GRAPHS
    assert graphs.replays == 2 * MAX_GRAPHS
    assert [f"more than {MAX_GRAPHS} kinds" in record.getMessage() for record in caplog.records] == [True]


def test_augmentation_reading_numbers_is_not_captured():
    def augment(images: Tensor, ids: Tensor, *, seed: int, epoch: int | Tensor) -> Tensor:
        return images + int(epoch)

    split = Split(DIGITS.train.inputs, DIGITS.train.targets, augment=augment)
    graphs = CpuGraphs()
    asked, eager = (NetworkOracle(Replica(network()), split, seed=0, graphs=g) for g in (graphs, None))
    for batch in batches():
        assert torch.equal(asked.gradient(eager.replica.weights, batch), eager.gradient(eager.replica.weights, batch))
    assert graphs.replays == 0


METHODS = {
    "sgd": ["algorithm=sgd", "algorithm.momentum=0.9", "algorithm.weight_decay=0.01"],
    "ssgd": ["algorithm=ssgd", "cluster.workers=3"],
    "dc_asgd_a": ["algorithm=dc_asgd_a", "cluster.workers=3"],
    "asgd": ["algorithm=asgd", "cluster.workers=3"],
    "local_sgd": ["algorithm=local_sgd", "cluster.workers=3"],
    "dasgd": ["algorithm=dasgd", "cluster.workers=3"],
    "dc_ssgd": ["algorithm=dc_ssgd", "cluster.workers=3"],
    "nag": ["algorithm=nag", "algorithm.layer_scale={classifier: 0.5}"],
    "lars": ["algorithm=lars", "cluster.workers=3"],
    "clars": ["algorithm=clars", "cluster.workers=3"],
}
RUN = ["model=resnet8", "dataset.limit_train=70", "dataset.augment=true", "dataset.limit_test=20", "run.batch_size=8"]


def on_pretended_gpu(method: str, folder: Path, patch: pytest.MonkeyPatch, graphs: CpuGraphs | None) -> Trial:
    """Simulate as on a GPU: rules in one piece, no look at the loss but at the end, and a host that never waits."""
    patch.setattr(build, "NetworkOracle", lambda *a, **k: NetworkOracle(*a, **{**k, "graphs": graphs}))
    trial = Trial(*METHODS[method], *RUN, "run.epochs=3", "run.eval_every=3", folder=folder)
    patch.setattr(blockwise.torch, "compile", lambda rule, **options: rule)
    patch.setattr(trial.control, "_scalars", lambda totals: None)
    with host_never_waits(pretending=True) as watch:
        evaluate = trial.control.evaluate

        def paused(*given: Any) -> None:
            with watch.paused():
                evaluate(*given)

        patch.setattr(trial.control, "evaluate", paused)
        trial.run()
    assert watch.seen > 100
    return trial


@pytest.mark.parametrize(
    "method", [m if m in ("sgd", "dc_asgd_a", "dc_ssgd") else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)
def test_simulation_with_graphs_never_waits(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graphs = CpuGraphs()
    captured = on_pretended_gpu(method, tmp_path, monkeypatch, graphs)
    monkeypatch.undo()
    eager = on_pretended_gpu(method, tmp_path, monkeypatch, None)
    assert captured.control.updates == eager.control.updates > 0
    assert captured.notes.rows == eager.notes.rows
    assert captured.sha256 == eager.sha256
    sizes = {len(batch.ids) for batch in _all(captured)} - {0}
    assert graphs.captures == (0 if method == "clars" else len(sizes))


def _all(trial: Trial) -> list[Batch]:
    """Every batch that a worker computes on."""
    executor: Any = trial.executor
    numbers = range(len(trial.components.batches))
    if hasattr(executor, "leases"):
        return [trial.components.batches.batch(number) for number in numbers]
    shares = (trial.components.batches.shares(number, trial.components.workers) for number in numbers)
    return [batch for given in shares for batch in given]
