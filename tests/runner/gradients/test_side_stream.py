from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Batch
from data.digits import Digits
from models.resnet import ResNet
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from tests.graphs import CpuGraphs, Late, host_never_waits

DIGITS = Digits(limit_train=64, limit_test=20, augment=True)
SIZES = [16, 16, 7, 16, 7, 16, 7]


def oracle(side_stream: Late | None, graphs: CpuGraphs | None = None, split: Any = DIGITS.train, **options: Any):
    torch.manual_seed(0)
    network = ResNet(depth=8, shape=(1, 8, 8), classes=10, batch_norm="micro_batch" not in options)
    return NetworkOracle(Replica(network), split, seed=3, side_stream=side_stream, graphs=graphs, **options)


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [Batch(n, n // 4, torch.randperm(64, generator=generator)[:size]) for n, size in enumerate(SIZES)]


def ask(asked: NetworkOracle, inbox: Tensor, question: str) -> list[Tensor]:
    """Ask with weights that arrive in one buffer, as a worker's messages do, and differ each time."""
    start, answers = asked.replica.weights.clone(), []
    for batch in batches():
        inbox.copy_(start + 0.01 * batch.number)
        answer = getattr(asked, question)(inbox, batch)
        answers += [tensor.clone() for tensor in (answer if isinstance(answer, tuple) else (answer,))]
    return answers


CASES: list[tuple[str, bool, dict[str, Any]]] = [
    ("gradient", False, {}),
    ("gradient", True, {}),
    ("gradient", True, {"micro_batch": 5}),
    ("gradient_and_norms", True, {}),
]


@pytest.mark.parametrize(("question", "captured", "options"), CASES)
def test_side_stream_weights_give_same_bits(question: str, captured: bool, options: dict[str, Any]):
    late, graphs = Late(), CpuGraphs()
    asked, reference = oracle(late, graphs if captured else None, **options), oracle(None, **options)
    inbox = torch.empty_like(asked.replica.weights)
    with host_never_waits():
        found = ask(asked, inbox, question)
    expected = ask(reference, inbox, question)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(asked.replica.statistics, reference.replica.statistics)
    assert torch.equal(asked.totals, reference.totals)
    assert late.log.count("join") == late.log.count("start") > 0
    replayed = len(SIZES) - 2 if captured and question == "gradient" and not options else 0
    assert graphs.replays == replayed


def test_batch_is_prepared_while_weights_copy():
    late = Late()

    class Watched:
        def batch(self, ids: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
            late.log.append("batch")
            return DIGITS.train.batch(ids, **given)

    asked = oracle(late, split=Watched())
    asked.gradient(torch.zeros_like(asked.replica.weights), batches()[0])
    assert late.log == ["start", "batch", "join"]


def test_graph_copies_from_its_recorded_address():
    graphs = CpuGraphs()
    asked, reference = oracle(Late(), graphs), oracle(None)
    start = reference.replica.weights.clone()
    boxes = [torch.empty_like(start), torch.empty_like(start)]
    for number, box in enumerate(boxes * 3):
        box.copy_(start + 0.01 * number)
        batch = batches()[0]
        assert torch.equal(asked.gradient(box, batch), reference.gradient(box, batch))
    assert graphs.captures == 2


def test_an_empty_batch_is_not_waited_for():
    late = Late()
    asked = oracle(late)
    gradient = asked.gradient(torch.ones_like(asked.replica.weights), Batch(0, 0, torch.empty(0, dtype=torch.int64)))
    assert not gradient.any()
    assert late.log == []
