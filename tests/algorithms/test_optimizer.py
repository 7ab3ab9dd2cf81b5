from typing import Any

import pytest
import torch

from algorithms.optimizer import Optimizer, OptimizerOptions


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(("name", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_is_pytorchs_to_the_bit(name: str, reference: Any, decay: float):
    torch.manual_seed(0)
    w = torch.randn(100)
    theirs = w.clone().requires_grad_()
    adam = reference([theirs], lr=0.01, weight_decay=decay, foreach=False)
    ours = Optimizer(OptimizerOptions(optimizer=name, weight_decay=decay))
    ours.start(w)
    for _ in range(20):
        g = torch.randn(100)
        theirs.grad = g.clone()
        adam.step()
        ours(w, g, 0.01)
        assert torch.equal(w, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, r"^algorithm\.momentum=0\.9: adam does not use it; allowed: "),
        ({"optimizer": "adamw", "momentum": 0.9}, r"^algorithm\.momentum=0\.9: adamw does not use it; allowed: "),
        ({"optimizer": "rmsprop"}, r"^algorithm\.optimizer=rmsprop: unknown; allowed: sgd, adam, adamw"),
        ({"optimizer": "sgd", "beta1": 0.9}, r"^algorithm\.beta1=0\.9: sgd does not use it; allowed: "),
        ({"optimizer": "adam", "beta2": 1.0}, r"^algorithm\.beta2=1\.0: .*; allowed: "),
    ],
)
def test_options_of_the_other_optimizer_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        OptimizerOptions(**options)


def test_velocity_is_kept_with_momentum_only():
    plain, heavy = Optimizer(OptimizerOptions()), Optimizer(OptimizerOptions(momentum=0.9))
    for optimizer in (plain, heavy):
        optimizer.start(torch.zeros(3))
    assert plain.state() == {}
    assert set(heavy.state()) == {"v"}
