"""Synthetic gradients: how they begin, what the synthesizer learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.optimizer import Optimizer, OptimizerOptions
from algorithms.synthesizer import Synthesizer
from tests.trial import Trial

SETTING = ("algorithm=dni", "model=resnet8", "dataset.limit_train=200", "run.batch_size=20", "schedule.lr=0.05")


@pytest.mark.parametrize("shape", [(6,), (3, 4, 4)])
def test_synthesizer_starts_at_zero_and_learns(shape: tuple[int, ...]):
    synthesizer = Synthesizer(shape, 10, seed=0, device=torch.device("cpu"))
    torch.manual_seed(0)
    features, targets = torch.randn(8, *shape), torch.arange(8)
    delta = 0.1 * torch.randn(8, *shape)
    assert torch.equal(synthesizer(features, targets), torch.zeros(8, *shape))
    adam = Optimizer(OptimizerOptions(optimizer="adam"))
    adam.start(synthesizer.weights)
    losses = []
    for _ in range(200):
        loss, g = synthesizer.learn(features, targets, delta)
        adam(synthesizer.weights, g, 1e-2)
        losses.append(float(loss))
    torch.testing.assert_close(losses[0], float((8 * delta).square().sum() / 8))
    assert losses[-1] < 0.1 * losses[0]


def test_labels_tell_it_what_features_cannot():
    synthesizer = Synthesizer((16,), 3, seed=0, device=torch.device("cpu"))
    torch.manual_seed(0)
    for parameter in synthesizer.parameters:
        parameter.data.copy_(torch.randn_like(parameter))
    guesses = synthesizer(torch.ones(2, 16), torch.tensor([0, 1]))
    assert not torch.equal(guesses[0], guesses[1])


def test_first_module_does_not_move_at_first(tmp_path: Path):
    trial = Trial(*SETTING, "run.epochs=0.1", "algorithm.weight_decay=0", folder=tmp_path)
    executor: Any = trial.executor
    before = [method.w.clone() for method in executor.methods]
    trial.run()
    assert trial.control.updates == 1
    assert torch.equal(executor.methods[0].w, before[0])
    assert not torch.equal(executor.methods[1].w, before[1])


def test_the_synthesizer_learns_with_the_network(tmp_path: Path):
    """Its loss, relative to that of a guess of zero, falls below one while the network trains."""
    trial = Trial(*SETTING, "schedule.lr=0.01", "run.epochs=25", folder=tmp_path)
    executor: Any = trial.executor
    synthesizer = executor.methods[0].synthesizer
    relative: list[float] = []
    learn = synthesizer.learn

    def noted(features: torch.Tensor, targets: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, g = learn(features, targets, delta)
        relative.append(float(loss / ((len(targets) * delta).square().sum() / len(targets))))
        return loss, g

    synthesizer.learn = noted
    trial.run()
    assert relative[0] == pytest.approx(1.0), "its first guess is zero"
    assert sum(relative[-30:]) / 30 < 0.97
