from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from models.base import Chain

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
SMALL = {"linear", "mlp", "resnet8", "resnet8_nobn", "resnet20", "mobilenet_v2", "googlenet"}


def test_all_models_have_a_config():
    depths = {f"resnet{depth}" for depth in (8, 20, 32, 44, 56, 110, 164)}
    small = {f"resnet{depth}" for depth in (18, 50, 101, 152)} | {"resnet8_nobn", "resnext29", "vgg11_bn", "vgg16_bn"}
    others = {"googlenet", "densenet121", "mobilenet_v2", "dpn92", "fcn5", "cnn5", "mlp", "linear"}
    large = {f"imagenet_{name}" for name in ("resnet18", "resnet50", "densenet121", "mobilenet_v2")}
    # Of one weight a feature: see test_objective.py.
    objectives = {"ridge", "logistic", "smoothed_hinge", "pca_step"}
    # A module of the user's: see test_ordinary.py. On tokens: see test_gpt.py.
    assert {path.stem for path in CONFIGS} == depths | small | others | large | objectives | {"own", "gpt"}


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem in SMALL], ids=lambda path: path.stem)
def test_config_builds_a_chain_for_the_dataset(path):
    net = instantiate(OmegaConf.load(path), shape=(1, 8, 8), classes=10)
    assert isinstance(net, Chain)
    outputs = net(torch.rand(2, 1, 8, 8))
    assert outputs.shape == (2, 10)
    assert len({name for name, _ in net.blocks()}) == len(net.block_names)


def test_unknown_options_are_refused():
    config = OmegaConf.load(next(path for path in CONFIGS if path.stem == "mlp"))
    with pytest.raises(Exception, match="dropout"):
        instantiate(config, shape=(4,), classes=2, dropout=0.5)


def test_widths_from_a_config():
    net = instantiate(OmegaConf.create({"_target_": "models.mlp.MLP", "widths": [6, 5]}), shape=(4,), classes=2)
    assert net.state_dict()["hidden2.linear.weight"].shape == (5, 6)
