import numpy as np
import pytest
import torch

from algorithms.momentum import sgd_step


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_is_torch_optim_sgd_to_the_bit(momentum: float, nesterov: bool):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(257, generator=generator)
    parameter = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.SGD([parameter], lr=0.3, momentum=momentum, nesterov=nesterov)
    v, s = (torch.zeros(257) if momentum else None), torch.empty(257)
    for lr in (0.3, 0.3, 0.03, 0.3):
        d = torch.randn(257, generator=generator)
        parameter.grad, kept = d.clone(), d.clone()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        sgd_step(w, d, v, s, lr=lr, momentum=momentum, nesterov=nesterov)
        assert torch.equal(w, parameter.detach())
        assert torch.equal(d, kept), "the direction belongs to the caller"


@pytest.mark.parametrize("nesterov", [False, True])
def test_is_the_rule_written_above_it(nesterov: bool):
    random = np.random.default_rng(1)
    w, v = random.standard_normal(50), np.zeros(50)
    ours_w, ours_v = torch.from_numpy(w.copy()), torch.zeros(50, dtype=torch.float64)
    for _ in range(4):
        d = random.standard_normal(50)
        v = 0.7 * v + d
        w = w - 0.2 * (d + 0.7 * v if nesterov else v)
        sgd_step(ours_w, torch.from_numpy(d), ours_v, torch.empty_like(ours_w), lr=0.2, momentum=0.7, nesterov=nesterov)
    np.testing.assert_allclose(ours_w, w, rtol=1e-13)
    np.testing.assert_allclose(ours_v, v, rtol=1e-13)
