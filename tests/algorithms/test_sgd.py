from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.sgd import SGD
from algorithms.ssgd import SSGD
from tests.trial import Trial, compose, equal, reference_sgd, train

# 70 samples in batches of 32: the last one of an epoch has 6.
RUN = ("algorithm=sgd", "dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=3", "schedule.lr=0.05")
DROP = ("schedule=multistep", "schedule.milestones=[1]", "schedule.gamma=0.5")

PLAIN = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
FORMS = {
    "plain": PLAIN,
    "momentum": PLAIN | {"momentum": 0.9},
    "nesterov": PLAIN | {"momentum": 0.8, "nesterov": True},
    "weight decay": PLAIN | {"weight_decay": 0.05},
    "all": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
}
NETWORKS = {
    "mlp": ("model=mlp",),
    "resnet8": ("model=resnet8", "run.channels_last=false"),
    "resnet8 channels-last": ("model=resnet8", "run.channels_last=true"),
}


def options(form: dict[str, Any]) -> list[str]:
    return [f"algorithm.{key}={str(value).lower()}" for key, value in form.items()]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_is_torch_optim_sgd_to_the_bit(form: dict[str, Any], network: tuple[str, ...], tmp_path: Path):
    overrides = (*RUN, *DROP, *network, *options(form))
    ours = train(*overrides, folder=tmp_path)

    plain, loop = reference_sgd(compose(*overrides), **form)
    before = {name: value.detach().clone() for name, value in plain.named_parameters()}
    loop(3, lambda update: 0.05 if update < 3 else 0.05 * 0.5)
    theirs = {name: value.detach() for name, value in plain.named_parameters()}
    assert not equal(before, theirs)
    assert equal(ours.weights, theirs)
    assert ours.control.updates == 9
    assert ours.control.epoch == 3

    saved = ours.components.oracle.replica.state_dict(ours.executor.weights(), ours.executor.running_statistics(), 9)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)


def test_augmentation_and_dropout_match_plain_loop(tmp_path: Path):
    overrides = (*RUN, "model=mlp", "dataset.augment=true", "algorithm.weight_decay=0")
    plain, loop = reference_sgd(compose(*overrides))
    loop(3, lambda update: 0.05)
    ours = train(*overrides, folder=tmp_path)
    assert equal(ours.weights, dict(plain.named_parameters()))
    assert ours.sha256 != train(*overrides, "dataset.augment=false", folder=tmp_path).sha256


def test_seed_decides_the_bits(tmp_path: Path):
    overrides = (*RUN, "model=resnet8", "dataset.augment=true")
    first, second, other = (train(*overrides, f"seed={seed}", folder=tmp_path) for seed in (3, 3, 4))
    assert first.sha256 == second.sha256
    assert first.notes.rows == second.notes.rows
    assert first.sha256 != other.sha256


def test_initial_weights_depend_on_seed_and_network(tmp_path: Path):
    starts = [
        Trial("model=resnet8", *given, folder=tmp_path).sha256
        for given in (
            ("algorithm=sgd", "dataset.limit_train=64"),
            ("algorithm=dc_asgd_a", "cluster.workers=3", "run.batch_size=8", "run.channels_last=false"),
        )
    ]
    assert starts[0] == starts[1]
    assert starts[0] != Trial("model=resnet8", "algorithm=sgd", "seed=1", folder=tmp_path).sha256


def test_sgd_is_ssgd_with_one_worker():
    assert issubclass(SGD, SSGD)
    assert SGD.default_workers == SGD.max_workers == 1
