import pytest
import torch
from torch import Tensor

from algorithms.base import Step
from algorithms.dc_asgd import DCASGDAdaptive, DCASGDConstant
from algorithms.sweep import BLOCK, Sweep


def rule(w: Tensor, g: Tensor, extra: Tensor | None, s: Tensor, *, scale: float) -> None:
    torch.mul(g, scale, out=s)
    if extra is not None:
        s.mul_(extra)
    w.add_(s)


@pytest.mark.parametrize("n", [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 17])
@pytest.mark.parametrize("with_none", [False, True])
def test_blocks_and_their_tail_cover_every_element_once(n: int, with_none: bool):
    w, g = torch.zeros(n), torch.randn(n, generator=torch.Generator().manual_seed(0))
    extra = None if with_none else torch.full((n,), 2.0)
    Sweep(rule, scratch=1)(w, g, extra, scale=3.0)
    assert torch.equal(w, 3.0 * g * (1.0 if with_none else 2.0))


def test_a_rule_never_sees_more_than_a_block_and_fitting_scratch():
    seen = []

    def watching(w: Tensor, s: Tensor, q: Tensor) -> None:
        seen.append((len(w), len(s), len(q)))
        assert s.data_ptr() != q.data_ptr()

    sweep = Sweep(watching, scratch=2)
    block = BLOCK * torch.get_num_threads()
    sweep(torch.zeros(block + 5))
    assert seen == [(block, block, block), (5, 5, 5)]


def test_a_longer_vector_after_a_short_one_gets_longer_scratch():
    sweep = Sweep(rule, scratch=1)
    for n in (10, BLOCK + 3, 10):
        w, g = torch.zeros(n), torch.ones(n)
        sweep(w, g, None, scale=1.0)
        assert torch.equal(w, g)


def test_scratch_has_the_operands_type():
    def watching(w: Tensor, s: Tensor) -> None:
        assert s.dtype == torch.float64

    Sweep(watching, scratch=1)(torch.zeros(3, dtype=torch.float64))


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
