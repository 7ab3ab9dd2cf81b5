from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from models.base import Chain

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


def test_all_models_have_a_config():
    depths = {f"resnet{depth}" for depth in (8, 20, 32, 44, 56, 110, 164)}
    assert {path.stem for path in CONFIGS} >= depths | {"mlp", "linear"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds_a_chain_for_the_dataset(path):
    net = instantiate(OmegaConf.load(path), shape=(1, 8, 8), classes=10)
    assert isinstance(net, Chain)
    outputs = net(torch.rand(2, 1, 8, 8))
    assert outputs.shape == (2, 10)
    assert len({name for name, _ in net.blocks()}) == len(net.block_names)
    if path.stem.startswith("resnet"):
        header = path.read_text().splitlines()[0]
        assert header.startswith(f"# ResNet-{path.stem.removeprefix('resnet')} ")
        count = sum(
            weight.numel() for weight in instantiate(OmegaConf.load(path), shape=(3, 32, 32), classes=10).parameters()
        )
        assert f"{count:,} parameters" in path.read_text()


def test_unknown_options_are_refused():
    config = OmegaConf.load(next(path for path in CONFIGS if path.stem == "mlp"))
    with pytest.raises(Exception, match="dropout"):
        instantiate(config, shape=(4,), classes=2, dropout=0.5)


def test_widths_from_a_config():
    net = instantiate(OmegaConf.create({"_target_": "models.mlp.MLP", "widths": [6, 5]}), shape=(4,), classes=2)
    assert net.state_dict()["hidden2.linear.weight"].shape == (5, 6)
