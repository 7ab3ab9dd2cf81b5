import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms import blockwise
from algorithms.base import Step
from algorithms.blockwise import BLOCK, BlockwiseUpdate
from algorithms.dc_asgd import DCASGDAdaptive, DCASGDConstant
from algorithms.local_sgd import LocalSGD


def rule(w: Tensor, g: Tensor, extra: Tensor | None, s: Tensor, *, scale: float) -> None:
    # PyTorch would make a result's tensor longer, with a warning.
    assert len(s) == len(w)
    torch.mul(g, scale, out=s)
    if extra is not None:
        s.mul_(extra)
    w.add_(s)


@pytest.mark.parametrize("n", [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 17])
@pytest.mark.parametrize("with_none", [False, True])
def test_blocks_cover_every_element_once(n: int, with_none: bool):
    w, g = torch.zeros(n), torch.randn(n, generator=torch.Generator().manual_seed(0))
    extra = None if with_none else torch.full((n,), 2.0)
    BlockwiseUpdate(rule, scratch=1)(w, g, extra, scale=3.0)
    assert torch.equal(w, 3.0 * g * (1.0 if with_none else 2.0))


def test_rule_sees_blocks_and_fitting_scratch():
    seen = []

    def watching(w: Tensor, s: Tensor, q: Tensor) -> None:
        seen.append((len(w), len(s), len(q)))
        assert s.data_ptr() != q.data_ptr()

    update = BlockwiseUpdate(watching, scratch=2)
    block = BLOCK * torch.get_num_threads()
    update(torch.zeros(block + 5))
    assert seen == [(block, block, block), (5, 5, 5)]


def test_longer_vector_gets_longer_scratch():
    update = BlockwiseUpdate(rule, scratch=1)
    for n in (10, BLOCK + 3, 10):
        w, g = torch.zeros(n), torch.ones(n)
        update(w, g, None, scale=1.0)
        assert torch.equal(w, g)


def test_scratch_has_the_operands_type():
    def watching(w: Tensor, s: Tensor) -> None:
        assert s.dtype == torch.float64

    BlockwiseUpdate(watching, scratch=1)(torch.zeros(3, dtype=torch.float64))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every update the way of vectors on a GPU."""
    monkeypatch.setattr(blockwise, "FUSED", blockwise._Fused())
    monkeypatch.setattr(BlockwiseUpdate, "__call__", BlockwiseUpdate._on_gpu)


@pytest.mark.usefixtures("on_gpu")
def test_gpu_rule_is_compiled_once(monkeypatch: pytest.MonkeyPatch):
    compiled: list[dict[str, Any]] = []
    scales = []

    def compile_(traced: Callable[..., None], **options: Any) -> Callable[..., None]:
        compiled.append(options)

        def fused(*vectors: Tensor | None, **scalars: Tensor) -> None:
            scales.append(scalars["scale"])
            traced(*vectors, **scalars)

        return fused

    monkeypatch.setattr(blockwise.torch, "compile", compile_)
    update, w = BlockwiseUpdate(rule, scratch=1), torch.zeros(10)
    for scale in (1.0, 2.0, 0.5):
        update(w, torch.ones(10), None, scale=scale)
    assert torch.equal(w, torch.full((10,), 3.5))
    assert compiled == [{"dynamic": False}]
    # In CPU memory, where reading a number makes nobody wait.
    assert [(s.shape, s.device.type) for s in scales] == [(torch.Size([]), "cpu")] * 3


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("error", [RuntimeError("no compiler\nmore"), ModuleNotFoundError("no compiler"), OSError()])
def test_gpu_without_compiler_warns_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    tried = []

    def broken(*vectors: Tensor | None, **scalars: Tensor) -> None:
        tried.append(scalars)
        raise error

    monkeypatch.setattr(blockwise.torch, "compile", lambda traced, **options: broken)
    caplog.set_level(logging.INFO, logger="dcrun")
    first, second, w = BlockwiseUpdate(rule, scratch=1), BlockwiseUpdate(rule, scratch=1), torch.zeros(10)
    for update in (first, second, first):
        update(w, torch.ones(10), None, scale=2.0)
    assert torch.equal(w, torch.full((10,), 6.0))
    assert len(tried) == 1
    [record] = caplog.records
    assert record.getMessage().startswith("updates run one kernel per operator")
    assert "\n" not in record.getMessage()


@pytest.mark.slow
def test_compiled_agrees_with_uncompiled_to_rounding():
    n = BLOCK + 17
    generator = torch.Generator().manual_seed(0)
    methods = [DCASGDAdaptive(lambda0=2.0, m=0.9, momentum=0.9, weight_decay=1e-2) for _ in range(2)]
    start = torch.randn(n, generator=generator)
    for method, compiled in zip(methods, (False, True), strict=True):
        method.start(start.clone(), 2, compiled)
    for worker in (0, 0, 1, 0):
        g = torch.randn(n, generator=generator)
        for method in methods:
            method.push(worker, {"g": g}, Step(lr=0.1))
            method.pull(worker)
    assert (methods[0].w - start).abs().max() > 0.1
    for name, tensor in methods[0].state().items():
        torch.testing.assert_close(methods[1].state()[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_many_workers_compile_one_rule():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for rank in range(12):
        method = LocalSGD(momentum=0.9)
        method.start(torch.zeros(100), rank, 12, compiled=True)
        method.update_blockwise(method.w, torch.ones(100), method.v, lr=0.1)
        assert method.w.eq(-0.1).all()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_a_new_learning_rate_compiles_nothing():
    methods = DCASGDConstant(lambda0=2.0, momentum=0.9), DCASGDAdaptive(lambda0=2.0, m=0.9, weight_decay=1e-2)
    for method in methods:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        method.start(torch.zeros(100), 1, compiled=True)
        for updates in range(12):
            before = method.w.clone()
            method.push(0, {"g": torch.ones(100)}, Step(lr=0.1 / (1 + updates)))
            assert not torch.equal(method.w, before)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
