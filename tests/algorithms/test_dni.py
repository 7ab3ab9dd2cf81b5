"""Synthetic gradients: how modules begin to move, and that the synthesizers learn beside them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trial import Trial

SETTING = ("algorithm=dni", "model=resnet8", "dataset.limit_train=200", "run.batch_size=20", "schedule.lr=0.05")


def test_first_module_does_not_move_at_first(tmp_path: Path):
    trial = Trial(*SETTING, "run.epochs=0.1", "algorithm.weight_decay=0", folder=tmp_path)
    executor: Any = trial.executor
    before = [method.w.clone() for method in executor.methods]
    trial.run()
    assert trial.control.updates == 1
    assert torch.equal(executor.methods[0].w, before[0])
    assert not torch.equal(executor.methods[1].w, before[1])


@pytest.mark.slow
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
