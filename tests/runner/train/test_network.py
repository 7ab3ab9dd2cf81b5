from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.base import Chain
from runner.config.errors import InputError
from runner.train.build import build_run
from tests.trial import Trial, compose

HERE = __name__
SHORT = ("dataset.limit_train=64", "dataset.limit_test=32", "run.epochs=1", "run.batch_size=16", "model=logistic")


class Plain(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


class Chained(Chain):
    def __init__(self, classes: int) -> None:
        super().__init__([("flatten", nn.Flatten()), ("linear", nn.Linear(64, classes))])


class Normed(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, classes), nn.BatchNorm1d(classes))


def vector(trial: Trial) -> Tensor:
    return torch.cat([value.flatten() for value in trial.weights.values()])


@pytest.mark.parametrize("algorithm", ["sgd", "dc_asgd_a"])
def test_plain_module_has_the_bits_of_a_chain(algorithm: str, tmp_path: Path):
    options = (*SHORT[:-1], f"algorithm={algorithm}")
    chain = Trial(*options, "model=logistic", f"model._target_={HERE}.Chained", folder=tmp_path).run()
    plain = Trial(*options, "model=logistic", f"model._target_={HERE}.Plain", folder=tmp_path).run()
    assert torch.equal(vector(plain), vector(chain))
    assert plain.notes.rows[-1] == chain.notes.rows[-1]


def test_plain_module_is_one_block_of_a_pipeline(tmp_path: Path):
    options = (*SHORT, "model._target_=" + f"{HERE}.Normed", "algorithm.weight_decay=0")
    alone = Trial(*options, "algorithm=sgd", folder=tmp_path).run()
    module = Trial(*options, "algorithm=bp", "cluster.workers=1", folder=tmp_path).run()
    assert torch.equal(vector(module), vector(alone))
    with pytest.raises(InputError, match=r"cluster\.workers=2: .* has 1 block with .* allowed: 1$"):
        build_run(compose(*options, "algorithm=bp", "cluster.workers=2"))


@pytest.mark.parametrize("algorithm", ["dc_asgd_a", "ssgd", "hogwild"])
def test_run_starts_from_given_weights_and_statistics(algorithm: str, tmp_path: Path):
    torch.manual_seed(3)
    given: Any = Normed(10)
    given.train()(torch.randn(8, 1, 8, 8))
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    options = (
        *SHORT,
        f"model._target_={HERE}.Normed",
        f"algorithm={algorithm}",
        f"model.weights={tmp_path}/w.safetensors",
    )
    trial = Trial(*options, folder=tmp_path)
    assert torch.equal(trial.weights["1.weight"], given[1].weight)
    running = trial.executor.running_statistics()
    assert torch.equal(running, torch.cat([given[2].running_mean, given[2].running_var]))


def test_unfit_module_is_refused_before_the_run():
    with pytest.raises(InputError, match=r"^model=logistic: has no parameters to train"):
        build_run(compose(*SHORT, "model._target_=torch.nn.ReLU"))
