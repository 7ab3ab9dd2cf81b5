"""Pipeline methods by hand: a small network in three modules, in plain autograd, step by step beside the executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.trial import Trial

SETTING = (
    "model=mlp",
    "model.widths=[12,10]",
    "model.activation=tanh",
    "dataset.limit_train=60",
    "dataset.limit_test=10",
    "run.batch_size=8",
    "run.epochs=2",
    "cluster.workers=3",
    "schedule.lr=0.2",
    "algorithm.weight_decay=0.01",
)
LR, DECAY = 0.2, 0.01


class ByHand:
    """The three layers of the run that `SETTING` describes, and its batches.

    Attributes:
        weights: weight and bias of each layer.
    """

    def __init__(self, *overrides: str, folder: Path) -> None:
        self.trial = Trial(*SETTING, *overrides, folder=folder)
        named = list(self.trial.weights.values())
        self.weights = [named[low : low + 2] for low in (0, 2, 4)]
        self.total = len(self.trial.components.batches)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return flattened inputs and targets."""
        batch = self.trial.components.batches.batch(number)
        inputs, targets = self.trial.components.dataset.train.batch(batch.ids, seed=0, epoch=batch.epoch)
        return inputs.flatten(1), targets

    def layer(self, k: int, inputs: Tensor, weights: list[Tensor]) -> Tensor:
        """Run layer `k`, of 0 to 2."""
        outputs = nn.functional.linear(inputs, *weights)
        return torch.tanh(outputs) if k < 2 else outputs

    def gradients(self, weights: list[list[Tensor]], number: int) -> list[list[Tensor]]:
        """Return the gradients of all layers on a batch, by one back-propagation."""
        leaves = [[p.clone().requires_grad_() for p in layer] for layer in weights]
        outputs, targets = self.batch(number)
        for k in range(3):
            outputs = self.layer(k, outputs, leaves[k])
        found = torch.autograd.grad(nn.functional.cross_entropy(outputs, targets), [p for ps in leaves for p in ps])
        return [list(found[low : low + 2]) for low in (0, 2, 4)]

    def sgd_step(self, k: int, gradient: list[Tensor]) -> None:
        """Take layer `k`'s step of SGD with weight decay."""
        self.weights[k] = [p - LR * (g + DECAY * p) for p, g in zip(self.weights[k], gradient, strict=True)]

    def check(self) -> None:
        """Run the executor to its end, and compare."""
        run: Any = self.trial.run()
        for ours, expected in zip(run.weights.values(), [p for layer in self.weights for p in layer], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
